"""Where a step ends, and how a solution goes on, for every kind of engine and separator."""

import pytest

from sampling.engines import CalculatorEngine, Completion, Engine, SamplingOptions
from sampling.engines.base import completed
from sampling.search import BeamSearch, BestOfN
from stepverify.records import InputError
from stepverify.template import Template
from tests.helpers.engines import CodePoints
from tests.helpers.searches import Valued, explored

PLAIN = SamplingOptions(max_tokens=200)
HALF = Valued(lambda steps: 0.5)


class Script(Engine):
    """Writes one text, from wherever a prompt has got to in it; ends it by an id of its own, or at a limit."""

    model, tokenizer, capacity = "script", CodePoints(), 8

    def __init__(self, text, pieces=None):
        self.text, self.asked, self.options, self.pieces = text, [], [], pieces

    def identity(self):
        return {"engine": "script"}

    async def complete(self, request, options):
        self.asked.append(request)
        self.options.append(options)
        begun = "".join(map(chr, request.prompt_ids)).partition("\n")[2]
        assert self.text.startswith(begun)
        return [
            completed(self.tokenizer, list(map(ord, self.text[len(begun) :]))[: options.max_tokens], "stop", options)
        ] * request.n


class TextScript(Script):
    """Writes the text as a server that tells no ids, and perhaps what stopped it."""

    tokenizer = None

    def __init__(self, text, says=True, chat=False):
        super().__init__(text)
        self.says, self.chat = says, chat

    async def complete(self, request, options):
        self.asked.append(request)
        begun = request.messages[-1].content if self.chat and request.messages[-1].role == "assistant" else ""
        if not self.chat:
            begun = request.prompt.partition("\n")[2]
        assert begun.startswith(self.text) or self.text.startswith(begun)
        left = self.text[len(begun) :]
        at, stop = min(((left.find(s), s) for s in options.stop if s in left), default=(len(left), ""))
        return [Completion(None, left[:at], "stop", counted=at, stopped_by=stop if self.says else None)] * request.n


def steps_of(text, template=None, engine=None, sampling=PLAIN, strategy=None, **options):
    """Steps of the solution that a beam of one finds, and the steps at which it stopped."""
    engine = engine or Script(text)
    template = template or Template(prompt="Q{problem}\n")
    ((_, found),), store = explored(
        strategy or BeamSearch(1, 1), engine=engine, scorer=HALF, template=template, sampling=sampling, **options
    )
    (node,) = found.nodes
    chain = []
    while node.parent is not None:
        chain.append(node)
        node = node.parent
    return chain[::-1], store.kept, engine


def test_a_step_is_a_line():
    chain, kept, engine = steps_of("a\nb\n#### 1")
    assert [node.steps for node in chain] == [("a",), ("a", "b"), ("a", "b", "#### 1")]
    assert [record.finish for record in kept] == ["step", "step", "stop"]
    assert [record.text for record in kept] == ["a\n", "b\n", "#### 1"]
    assert [options.stop for options in engine.options] == [["\n"]] * 3
    assert [options.max_tokens for options in engine.options] == [200, 198, 196]


def test_a_prefix_is_continued_on_its_own_tokens():
    """Each request holds the ids of the prompt and those that were sampled, separators included."""
    _, kept, engine = steps_of("a\nb\n#### 1")
    sampled = []
    for request, record in zip(engine.asked, kept, strict=True):
        assert request.prompt_ids == [*map(ord, "Q000\n"), *sampled]
        sampled += record.token_ids


def test_empty_lines_are_no_steps():
    """A separator after nothing does not end a step: the continuation goes on, and is one expansion."""
    chain, kept, _ = steps_of("\n\na\n\n#### 1")
    assert [node.steps for node in chain] == [("a",), ("a", "#### 1")]
    assert [record.text for record in kept] == ["\n\na\n", "\n#### 1"]


BLOCK = "Code:\n```\nx = 1\n\ny = 2\n```\n\nSo \\[ 1\n\n+ 1 \\]\n\n#### 1"


def test_code_blocks_and_formulas_are_whole_steps():
    template = Template(prompt="Q{problem}\n", step_separator="\n\n")
    chain, _, _ = steps_of(BLOCK, template)
    assert list(chain[-1].steps) == template.split(BLOCK)
    assert [len(node.steps) for node in chain] == [1, 2, 3]


@pytest.mark.parametrize("mark", ["", "**", "### "])
def test_headings_begin_steps(mark):
    text = f"{mark}Step 1: a\nb\n\n{mark}Step 2: c\n\n{mark}Step 3: #### 1"
    template = Template(prompt="Q{problem}\n", step_separator="Step {i}:")
    chain, _, _ = steps_of(text, template)
    assert list(chain[-1].steps) == template.split(text)
    assert [len(node.steps) for node in chain] == [1, 2, 3]


def test_a_stop_text_across_a_separator_ends_the_solution():
    """The separator is met first, so the text that ends solutions begins in the tokens before it."""
    sampling = SamplingOptions(max_tokens=200, stop=["\nQuestion:"])
    chain, _, _ = steps_of("a\n#### 1\nQuestion: what?\nb", sampling=sampling)
    assert chain[-1].finish == "stop"
    assert chain[-1].steps == ("a", "#### 1")


def test_the_length_limit_is_that_of_the_solution():
    """Of 8 tokens 2 are spent in each of the first two rounds, so the final step is cut off after 4."""
    chain, kept, _ = steps_of("a\nb\n#### 1", sampling=SamplingOptions(max_tokens=8))
    assert chain[-1].finish == "length"
    assert [record.tokens for record in kept] == [2, 2, 4]


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("text", ["a\nb\n#### 1", "a\nb\n#### 1\n"])
def test_a_server_without_token_ids(says, text):
    """Where it does not say what stopped it, one more request finds that nothing follows."""
    chain, kept, engine = steps_of(text, engine=TextScript(text, says))
    assert len(engine.asked) == 3 + (not says or text.endswith("\n"))
    assert [node.steps for node in chain][-1] == ("a", "b", "#### 1")
    assert chain[-1].finish == "stop"
    assert all(record.token_ids is None for record in kept)
    assert [r.prompt for r in engine.asked][:3] == ["Q000\n", "Q000\na\n", "Q000\na\nb\n"]


def test_a_chat_server_continues_the_turn_of_the_assistant():
    template = Template(chat=True, step_separator="\n\n")
    text = "a\nb\n\nc\n\n#### 1"
    chain, _, engine = steps_of(text, template, TextScript(text, chat=True))
    assert chain[-1].steps == ("a\nb", "c", "#### 1")
    assert [m.content for m in engine.asked[1].messages if m.role == "assistant"] == ["a\nb\n\n"]
    assert engine.asked[0].messages[-1].role == "user"


def test_whole_solutions_have_no_separator_among_the_stop_texts():
    _, kept, engine = steps_of("a\nb\n#### 1", strategy=BestOfN(1))
    assert [options.stop for options in engine.options] == [[]]
    assert [record.text for record in kept] == ["a\nb\n#### 1"]


def test_the_calculator_works_within_a_step():
    """The script writes 5 for 2 + 2; the calculator's value is in the step, and the script goes on from there."""

    class Wrong(Script):
        async def complete(self, request, options):
            begun = "".join(map(chr, request.prompt_ids + request.prefix_ids)).partition("\n")[2]
            rest = {"": "2+2=<<2+2=5>>5\n", "2+2=<<2+2=4>>": "4\n"}.get(begun, "#### 4")
            ids = [*request.prefix_ids, *map(ord, rest)]
            return [completed(self.tokenizer, ids, "stop", options)] * request.n

    chain, kept, _ = steps_of("", engine=CalculatorEngine(Wrong("")))
    assert chain[-1].steps == ("2+2=<<2+2=4>>4", "#### 4")
    assert [record.num_calculator_edits for record in kept] == [1, 0]
    assert chain[-1].num_calculator_edits == 1


def test_what_a_server_refuses_has_no_node():
    class Refuses(Script):
        async def complete(self, request, options):
            return [Completion(None, "", "refused")] * request.n

    ((_, found),), store = explored(BeamSearch(4, 2), engine=Refuses(""), scorer=HALF)
    assert not found.nodes
    assert not store.kept


def test_a_regular_expression_is_no_place_to_stop_at():
    with pytest.raises(InputError, match="a step cannot be stopped at by a regular expression"):
        steps_of("a", Template(prompt="Q{problem}\n", step_separator={"regex": "\n(?=x)"}))
