import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.data.encode import Example, LeftOut, SolutionEncoder, load_tokenizer
from stepverify.records import Problem
from stepverify.template import Template

# Ids of the character tokenizer are listed in conftest.py; a digit d is 20 + d.
TEMPLATE = Template(prompt="Q{problem}\nA", step_tag="<step>")
PROMPT = [6, 21, 8, 22, 5, 7]  # Q 1 + 2 ⏎ A
FIRST = [21, 8, 22, 10, 23, 5]  # 1 + 2 = 3 ⏎
SECOND = [15, 23, 5]  # # 3 ⏎
EOS, BOS, TAG = 1, 3, 4


@pytest.fixture
def record(make_solution):
    """1+2=3 / #3, ended by itself."""
    return make_solution(["1+2=3", "#3"], problem="1+2", finish="stop")


@pytest.fixture
def cut_off(make_solution):
    """The same, cut off at the token limit."""
    return make_solution(["1+2=3", "#3"], problem="1+2", finish="length")


@pytest.fixture(params=[False, True], ids=["no BOS", "BOS"])
def encoder_and_start(request, characters, characters_bos):
    """An encoder, and the ids that every sequence of it begins with."""
    return SolutionEncoder(characters_bos if request.param else characters, TEMPLATE), [BOS] if request.param else []


def test_the_generator_is_read_before_every_solution_token(encoder_and_start, record):
    """16 tokens with EOS and without BOS; EOS is only a target. Token 6 is the first of the solution, read at 5."""
    encoder, start = encoder_and_start
    one = len(start)
    assert encoder.next_token(record) == Example(
        input_ids=start + PROMPT + FIRST + SECOND,
        positions=[p + one for p in range(5, 15)],
        targets=[float(i) for i in [*FIRST, *SECOND, EOS]],
        record=record,
    )


def test_the_outcome_verifier_is_read_at_every_solution_token(encoder_and_start, record):
    """Positions 6 to 14 are the solution, 15 is EOS; prompt tokens are not read."""
    encoder, start = encoder_and_start
    one = len(start)
    ids = start + PROMPT + FIRST + SECOND + [EOS]
    positions = [p + one for p in range(6, 16)]
    assert encoder.outcome(record, [1.0, 1.0]) == Example(ids, positions, [1.0] * 10, record)
    assert encoder.outcome(record, [0.0, 0.0]).targets == [0.0] * 10
    assert encoder.outcome(record, None) == Example(ids, positions, None, record)
    assert encoder.outcome(record, [0.5, 1.0], last_only=True) == Example(ids, [15 + one], [1.0], record)


def test_each_step_has_its_own_value(encoder_and_start, record):
    """Six tokens of the first step, three of the second, and EOS, which belongs to the last step."""
    encoder, start = encoder_and_start
    one = len(start)
    assert encoder.outcome(record, [0.75, 0.25]).targets == [0.75] * 6 + [0.25] * 4
    known = encoder.outcome(record, [None, 0.25])
    assert (known.positions, known.targets) == ([p + one for p in range(12, 16)], [0.25] * 4)
    assert encoder.outcome(record, [0.75, None]).positions == [p + one for p in range(6, 12)]
    with pytest.raises(LeftOut, match=r"^without a known value$"):
        encoder.outcome(record, [0.75, None], last_only=True)


def test_language_is_read_before_every_solution_token_and_judged_nowhere(encoder_and_start, record):
    """Read one before the solution tokens 6 to 14 and EOS at 15: at 5 to 14."""
    encoder, start = encoder_and_start
    one = len(start)
    ids = start + PROMPT + FIRST + SECOND + [EOS]
    example = encoder.lm(record)
    assert example == Example(ids, [], [], record, [p + one for p in range(5, 15)])
    assert example.lm_targets() == FIRST + SECOND + [EOS]
    assert example.weight() == (0.0, 10.0)


def test_the_process_reward_model_is_read_at_the_tags(encoder_and_start, record):
    """Prompt 0-5, first step 6-11, its tag 12, second step 13-15, its tag 16; no EOS."""
    encoder, start = encoder_and_start
    one = len(start)
    ids = start + PROMPT + FIRST + [TAG] + SECOND + [TAG]
    assert encoder.process(record, [1.0, 0.25]) == Example(ids, [12 + one, 16 + one], [1.0, 0.25], record)
    assert encoder.process(record, None) == Example(ids, [12 + one, 16 + one], None, record)


def test_unlabelled_steps_are_there_but_not_read(characters, record):
    """A target of 0 is a label, None is none."""
    encoder = SolutionEncoder(characters, TEMPLATE)
    ids = [*PROMPT, *FIRST, TAG, *SECOND, TAG]
    assert encoder.process(record, [None, 0.0]) == Example(ids, [16], [0.0], record)
    assert encoder.process(record, [0.0, None]) == Example(ids, [12], [0.0], record)
    with pytest.raises(LeftOut, match=r"^without a labelled step$"):
        encoder.process(record, [None, None])
    with pytest.raises(ValueError, match=r"zip\(\)"):
        encoder.process(record, [1.0])


def test_what_was_cut_off_has_no_end(characters, cut_off):
    """Without EOS the generator learns 9 tokens and not 10, and the verifier is read at 9."""
    encoder = SolutionEncoder(characters, TEMPLATE)
    generator, verifier = encoder.next_token(cut_off), encoder.outcome(cut_off, [0.0] * len(cut_off.steps))
    assert generator.input_ids == [*PROMPT, *FIRST, *SECOND][:-1]
    assert generator.targets == [float(i) for i in [*FIRST, *SECOND]]
    assert generator.positions == list(range(5, 14))
    assert verifier.input_ids == [*PROMPT, *FIRST, *SECOND]
    assert verifier.positions == list(range(6, 15))
    assert encoder.outcome(cut_off, [0.0] * len(cut_off.steps), last_only=True).positions == [14]


def test_what_is_too_long_is_left_out_whole(characters, record):
    """16 tokens with EOS for generator and verifier, 17 with both tags for the process reward model."""
    for length, fits in ((17, (True, True)), (16, (True, False)), (15, (False, False))):
        encoder = SolutionEncoder(characters, TEMPLATE, max_length=length)
        calls = [
            (lambda e=encoder: e.next_token(record), fits[0]),
            (lambda e=encoder: e.outcome(record, [1.0] * len(record.steps)), fits[0]),
            (lambda e=encoder: e.process(record, [1.0, 1.0]), fits[1]),
        ]
        for call, fitting in calls:
            if fitting:
                assert call().record is record
            else:
                with pytest.raises(LeftOut, match=f"^longer than max_length = {length} tokens$"):
                    call()


def test_without_steps_there_is_nothing_to_read(characters, make_solution):
    encoder, empty = SolutionEncoder(characters, TEMPLATE), make_solution([])
    with pytest.raises(LeftOut, match=r"^without a worked solution$"):
        encoder.next_token(empty)
    with pytest.raises(LeftOut, match=r"^without a step$"):
        encoder.outcome(empty, [])
    with pytest.raises(LeftOut, match=r"^without a step$"):
        encoder.process(empty, None)


def test_a_layout_changes_the_ids(characters, record):
    encoder = SolutionEncoder(characters, Template(prompt="{problem}:", step_separator="\n\n", step_tag="#"))
    assert encoder.process(record, None).input_ids == [21, 8, 22, 16, *FIRST, 5, 15, *SECOND, 5, 15]
    shown = SolutionEncoder(characters, encoder.template, examples=[Problem(id="e", problem="2", steps=["3"])])
    assert shown.prompt("1") == [22, 16, 23, 5, 5, 5, 21, 16]


def test_a_prefix_stands_after_bos(characters_bos):
    encoder = SolutionEncoder(characters_bos, TEMPLATE, examples=[Problem(id="e", problem="2", steps=["3"])])
    assert encoder.prompt("1") == [BOS, 6, 22, 5, 7, 23, 5, 5, 6, 21, 5, 7]


@pytest.fixture(scope="module")
def merging():
    """A tokenizer that would merge across the end of a step: ``⏎#`` is 6, and ``12`` is 7."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<eos>": 0, "1": 1, "2": 2, "\n": 3, "#": 4, "?": 5, "\n#": 6, "12": 7, "+": 8, "-": 9}
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[("\n", "#"), ("1", "2")]))
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def test_no_merge_crosses_the_border_of_a_step(merging, make_solution):
    """The text ?⏎12⏎#2⏎ in one piece has the token ⏎#; step by step it has not, while 12 is one token in both."""
    record = make_solution(["12", "#2"], problem="?")
    encoder = SolutionEncoder(merging, Template(prompt="{problem}\n", step_tag="#"))
    assert merging.encode("?\n12\n#2\n") == [5, 3, 7, 6, 2, 3]
    assert encoder.path("?", ["12", "#2"]) == [5, 3, 7, 3, 4, 2, 3]
    assert encoder.next_token(record).targets == [7.0, 3.0, 4.0, 2.0, 3.0, 0.0]
    assert encoder.process(record, None) == Example([5, 3, 7, 3, 4, 4, 2, 3, 4], [4, 8], None, record)


STEPS = st.lists(st.text("12#+ab\n =", max_size=6), max_size=5)


@given(STEPS, st.data())
@settings(max_examples=25)
def test_a_shared_beginning_has_the_same_ids(characters_bos, merging, tokenizer, steps, data):
    """So a rollout continues exactly what was sampled, and a cached prefix fits."""
    for which in (characters_bos, merging, tokenizer):
        encoder = SolutionEncoder(which, TEMPLATE)
        whole, k = encoder.path("1+2", steps), data.draw(st.integers(0, len(steps)))
        part = encoder.path("1+2", steps[:k])
        assert whole[: len(part)] == part
        assert whole[len(part) :] == [i for step in steps[k:] for i in encoder.step(step)]


@given(st.lists(st.text("12#+ab =", min_size=1, max_size=6), min_size=1, max_size=5), st.booleans())
@settings(max_examples=25)
def test_generator_and_verifiers_agree_on_the_text(characters_bos, make_solution, steps, stopped):
    """The token read for is the next one; the tags come out of the ids of the path and nothing else does."""
    encoder = SolutionEncoder(characters_bos, TEMPLATE)
    record = make_solution(steps, problem="1", finish="stop" if stopped else "length")
    path, generator, outcome = (
        encoder.path("1", steps),
        encoder.next_token(record),
        encoder.outcome(record, [1.0] * len(steps)),
    )
    assert outcome.input_ids == path + [EOS] * stopped
    assert generator.input_ids == outcome.input_ids[:-1]
    assert generator.targets == [float(outcome.input_ids[p + 1]) for p in generator.positions]
    assert [p + 1 for p in generator.positions] == outcome.positions
    process = encoder.process(record, None)
    assert [process.input_ids[p] for p in process.positions] == [TAG] * len(steps)
    assert [i for p, i in enumerate(process.input_ids) if p not in process.positions] == path
    ends = [len(encoder.path("1", steps[: k + 1])) for k in range(len(steps))]
    assert process.positions == [end + k for k, end in enumerate(ends)]


# ── tokenizers that are in use ────────────────────────────────────────────────────────────────────

REAL = pytest.mark.parametrize(("name", "tag"), [("smollm2-135m", "<reponame>"), ("qwen2.5-coder-0.5b", "<|fim_pad|>")])


@pytest.mark.slow
@REAL
def test_real_tokenizers_do_not_move_the_tags(models_folder, make_solution, name, tag):
    """``.⏎`` is one token of Qwen: still every tag stands right after its own step."""
    real = load_tokenizer(str(models_folder / name))
    steps = ["So she has 3.", "  Then 3 + 4 = 7.", "\n", "é … 7 km²!)", "#### 7"]
    for step_separator in ("\n", "\n\n", "\nки"):
        encoder = SolutionEncoder(real, Template(step_tag=tag, step_separator=step_separator))
        record = make_solution(steps, problem="How many?")
        example = encoder.process(record, None)
        assert [example.input_ids[p] for p in example.positions] == [encoder.step_tag_id] * len(steps)
        assert example.input_ids.count(encoder.step_tag_id) == len(steps)
        text = encoder.template.render_prompt("How many?")
        for k, position in enumerate(example.positions):
            text += encoder.template.render_step(steps[k])
            assert real.decode(example.input_ids[:position]) == text
            text += tag
        for k in range(len(steps) + 1):
            part = encoder.path("How many?", steps[:k])
            assert encoder.path("How many?", steps)[: len(part)] == part
    if name.startswith("qwen"):
        assert len(real.encode(".\n", add_special_tokens=False)) == 1
