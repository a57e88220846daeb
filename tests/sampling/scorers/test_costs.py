"""What a scorer costs: objective, parameters, the tokens that it reads for a solution, and those that it computes."""

import asyncio
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from safetensors.torch import load_file

from sampling.engines.base import Usage
from sampling.scorers import ExportedVerifier, PoolingVerifier, QwenPRM, Scorer
from sampling.scorers.workers import Pool
from stepverify.prms import load_prm
from stepverify.records import InputError, Solution
from tests.helpers import prms
from tests.helpers.exports import EMPTY, LONG, SOLUTIONS, solution, write_process
from tests.helpers.tiny import model_folder
from tests.sampling.scorers.fakes import FakeScorer


def test_tokens_and_parameters_of_exports(outcome, process):
    """The prompt ``a = 0 ; b = a + 1 ; b ?`` has 13 tokens with its line end, ``b = 0 + 1 = 1`` has 8, ``#### 1`` has 3.

    A process reward model reads a step tag after each step, an outcome verifier the end of the sequence, unless the
    solution was cut off. Its value head has 64 weights and a bias.
    """
    orm, prm = ExportedVerifier(outcome), ExportedVerifier(process)
    assert (orm.objective, prm.objective) == ("outcome", "process")
    assert (orm.num_parameters, prm.num_parameters) == (163_008 + 65, 163_008)
    assert orm.count_tokens(SOLUTIONS[0]) == 13 + 8 + 3 + 1
    assert prm.count_tokens(SOLUTIONS[0]) == 13 + 8 + 1 + 3 + 1
    assert orm.count_tokens(SOLUTIONS[3]) == 13 + 6
    for scorer in (orm, prm):
        assert [scorer.count_tokens(s) for s in (LONG, EMPTY)] == [0, 0]


def test_a_pooling_runner_counts_as_the_model_itself(outcome):
    pooling, plain = PoolingVerifier(outcome), ExportedVerifier(outcome)
    assert pooling.objective == "outcome"
    assert pooling.num_parameters == plain.num_parameters
    assert [pooling.count_tokens(s) for s in SOLUTIONS] == [plain.count_tokens(s) for s in SOLUTIONS]


@pytest.mark.parametrize("made", [lambda prm: prm, lambda prm: PoolingVerifier(prm=prm)])
def test_a_released_model_is_a_process_reward_model(made, tmp_path):
    """Reading ends with the final step's tag."""
    prm = QwenPRM(prms.write("QwenPRM", tmp_path / "m"))
    scorer, loaded = made(prm), load_prm("QwenPRM", prm.path, device="cpu")
    asked = Solution(id="p#0", problem_id="p", problem=prms.PROBLEM, steps=prms.STEPS, finish="stop")
    assert scorer.objective == "process"
    assert scorer.count_tokens(asked) == loaded.encoder.process(asked, None).positions[-1] + 1 == 166
    stored = [load_file(file) for file in Path(prm.path).glob("*.safetensors")]
    assert scorer.num_parameters == sum(tensor.numel() for tensors in stored for tensor in tensors.values())


def grown(scorer: Scorer, given: Solution) -> tuple[list[list[float]], tuple[int, int]]:
    """Values of a solution's prefixes, and tokens read and not computed: each call awaits the one before."""

    async def run() -> list[list[float]]:
        async with scorer:
            parts = [replace(given, steps=given.steps[:end], finish="length") for end in range(1, len(given.steps))]
            return [(await scorer.score([one]))[0] for one in (*parts, given)]

    values = asyncio.run(run())
    assert scorer.usage is not None
    return values, (scorer.usage.prompt_tokens, scorer.usage.cached_tokens)


def test_tokens_of_growing_prefixes_are_counted(process, outcome):
    """``b = 4 + 1 = 5`` twice and ``#### 5``: 13 + 9, then 9 more, then 4 more, for a process reward model with tags.

    88 = 22 + 31 + 35 are read; with what a search keeps, 22 + 31 of them are not computed. An outcome verifier reads
    83 = 21 + 29 + 33, whose last has the end of the sequence; 21 + 29 are known. Without a cache nothing is.
    """
    s = SOLUTIONS[4]
    for path, read, known in ((process, 88, 53), (outcome, 83, 50)):
        plain, kept = ExportedVerifier(path, device="cpu"), ExportedVerifier(path, device="cpu")
        kept.keep_prefixes()
        assert kept.prefix_cache_gib == 1.0
        assert (plain.caches_prefixes, kept.caches_prefixes) == (False, True)
        wanted, counts = grown(plain, s)
        assert counts == (read, 0)
        found, counts = grown(kept, s)
        assert counts == (read, known)
        assert [len(values) for values in found] == [len(values) for values in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    never = ExportedVerifier(process, device="cpu", prefix_cache_gib=0)
    never.keep_prefixes()
    assert not never.caches_prefixes
    assert grown(never, s)[1] == (88, 0)
    assert never.identity() == ExportedVerifier(process, prefix_cache_gib=3.0).identity()
    with pytest.raises(InputError, match=r"^prefix_cache_gib: expected 0 or more, or null, got -1$"):
        ExportedVerifier(process, prefix_cache_gib=-1)


def test_a_model_that_cannot_keep_prefixes_is_refused(tokenizer, tmp_path):
    """GPT-J computes attention by itself. With 0 it scores, and reads all 88 tokens."""
    sizes = {
        "n_embd": 32,
        "n_head": 4,
        "n_layer": 2,
        "n_inner": 48,
        "n_positions": 64,
        "rotary_dim": 8,
        "head_dim": None,
    }
    base = model_folder("gptj", tmp_path / "base", tokenizer, **sizes)
    export = write_process(base, tmp_path / "export")
    with pytest.raises(
        InputError, match=r"export: prefix_cache_gib: 1\.0: its keys and values cannot be kept \(its layers "
    ):
        grown(ExportedVerifier(export, device="cpu", prefix_cache_gib=1.0), SOLUTIONS[4])
    assert grown(ExportedVerifier(export, device="cpu", prefix_cache_gib=0), SOLUTIONS[4])[1] == (88, 0)


def test_a_released_model_keeps_prefixes_too(tmp_path):
    """The ids of three steps' prompt are those of two, and more: 128, 149 and 166 tokens to the tags that are read."""
    prm = QwenPRM(prms.write("QwenPRM", tmp_path / "m"), device="cpu", prefix_cache_gib=0.01)
    asked = Solution(id="p#0", problem_id="p", problem=prms.PROBLEM, steps=prms.STEPS, finish="stop")
    values, counts = grown(prm, asked)
    assert counts == (128 + 149 + 166, 128 + 149)
    _, wanted = prms.by_card("QwenPRM", prm.path, prms.PROBLEM, prms.STEPS)
    assert values[2] == pytest.approx(wanted, abs=1e-5)
    assert values[:2] == [values[2][:1], values[2][:2]]


@pytest.mark.parametrize("processes", [0, 2])
def test_every_process_counts(processes, tmp_path):
    """The fake reads 10 tokens a step, of which all steps but the first leave one out: 7 solutions of 3 steps are 210."""
    given = [solution(n, ["a", "b", "c"]) for n in range(7)]

    async def run():
        async with FakeScorer(str(tmp_path), processes) as scorer:
            await asyncio.gather(*(scorer.score([s, EMPTY]) for s in given))
            return scorer.usage

    assert asyncio.run(run()) == Usage(prompt_tokens=210, cached_tokens=14)


class Gated:
    """A worker that notes the problems of each batch, and waits at its gate."""

    def __init__(self) -> None:
        self.seen, self.gate = [], threading.Event()
        self.gate.set()

    def run(self, solutions):
        self.seen.append([s.problem_id for s in solutions])
        assert self.gate.wait(30)
        return [[0.5]] * len(solutions), Usage()

    def close(self):
        self.gate.set()


def test_a_problem_stays_with_the_worker_whose_cache_knows_it():
    """Two problems, two workers, in either order; while its own is busy, an idle one takes a problem over."""
    workers = [Gated(), Gated()]
    one, two = solution(1, ["a"]), solution(2, ["a"])

    async def busy(pool, worker, solution):
        """The worker is at its gate with a solution."""
        worker.gate.clear()
        task, before = asyncio.create_task(pool.score([solution])), len(worker.seen)
        while len(worker.seen) == before:
            await asyncio.sleep(0.001)
        return task

    async def run():
        pool = Pool(workers, Usage(), sticky=True)
        first = await busy(pool, workers[0], one)
        await pool.score([two])
        workers[0].gate.set()
        await first
        for pair in ([one, two], [two, one], [two, one]):
            await asyncio.gather(*(pool.score([s]) for s in pair))
        first = await busy(pool, workers[0], one)
        await pool.score([replace(one, id="p/1#1")])
        workers[0].gate.set()
        await first
        pool.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert [worker.seen for worker in workers] == [[["p/1"]] * 5, [["p/2"]] * 4 + [["p/1"]]]
