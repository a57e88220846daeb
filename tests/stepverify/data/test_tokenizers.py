"""Which tokenizers and templates are taken: tags and labels of one token, and the texts of tokens."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepverify.data.encode import SolutionEncoder, load_tokenizer
from stepverify.data.tokens import single_token
from stepverify.records import InputError
from stepverify.template import Template

# Ids of the character tokenizer are listed in conftest.py; a digit d is 20 + d.
TEMPLATE = Template(prompt="Q{problem}\nA", step_tag="<step>")


# ── tags and labels ───────────────────────────────────────────────────────────────────────────────


def test_tag_and_labels_are_one_token_each(characters):
    encoder = SolutionEncoder(characters, TEMPLATE)
    assert (encoder.step_tag_id, encoder.label_ids) == (4, (9, 8))  # negative first
    swapped = SolutionEncoder(characters, Template(step_tag="#", positive="a", negative="b"))
    assert (swapped.step_tag_id, swapped.label_ids) == (15, (12, 11))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab", "is 2 tokens ['a', 'b']"),
        ("<step>+", "is 2 tokens ['<step>', '+']"),
        ("z", "is 1 tokens ['<unk>']"),
        ("", "is 0 tokens []"),
    ],
)
def test_what_is_no_single_token_is_named_with_what_would_be(characters_bos, text, pieces):
    with pytest.raises(InputError) as caught:
        single_token(characters_bos, text, "template.step_tag")
    assert str(caught.value) == (
        f"template.step_tag: {text!r} {pieces} in characters, it must be one known token; "
        "single tokens there: '+', '-', '<step>'"
    )


@pytest.mark.parametrize(("key", "template"), [
    ("template.step_tag", {"step_tag": "ab"}), ("template.positive", {"positive": "ab"}), ("template.negative", {"negative": "ab"}),
])  # fmt: skip
def test_the_key_that_is_incorrect_is_named(characters, key, template):
    with pytest.raises(InputError, match=rf"^{key}: 'ab' is 2 tokens"):
        _ = SolutionEncoder(characters, Template(**template)).label_ids


@pytest.mark.parametrize(("tag", "number"), [("+", 8), ("-", 9)])
def test_the_tag_is_no_label(characters, tag, number):
    with pytest.raises(
        InputError, match=rf"need 3 different tokens, got ids {{'step_tag': {number}, 'negative': 9, 'positive': 8}}"
    ):
        _ = SolutionEncoder(characters, Template(step_tag=tag)).label_ids


def test_different_texts_can_still_be_the_same_token(tokenizer):
    """The word-level tokenizer drops spaces: `` +`` is ``+``."""
    with pytest.raises(
        InputError, match=r"need 3 different tokens, got ids \{'step_tag': 3, 'negative': 7, 'positive': 7\}"
    ):
        _ = SolutionEncoder(tokenizer, Template(positive="+", negative=" +")).label_ids


def test_a_token_must_read_as_its_text():
    """A tokenizer that drops what it does not know takes ``<a>`` for the token ``a``."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(BPE(vocab={"<eos>": 0, "a": 1, "+": 2, "-": 3}, merges=[]))
    dropping = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", name_or_path="dropping")
    assert dropping.encode("<a>") == [1]
    with pytest.raises(InputError) as caught:
        single_token(dropping, "<a>", "template.step_tag")
    assert str(caught.value) == (
        "template.step_tag: '<a>' is 1 tokens ['a'] in dropping, it must be one known token; single tokens there: '+', '-'"
    )
    assert single_token(dropping, "a", "template.step_tag") == 1


# ── loading ───────────────────────────────────────────────────────────────────────────────────────


def test_the_tokenizer_of_a_folder(base, tiny_model_dir):
    """As its tokenizer.json says: line ends and tag are tokens. AutoTokenizer drops them for a Qwen2 config."""
    for folder in (base, tiny_model_dir):
        encoder = SolutionEncoder(load_tokenizer(str(folder)), Template(prompt="{problem}\n"))
        assert encoder.path("a = 1 ; a ?", ["#### 1"]) == [14, 6, 25, 10, 14, 11, 4, 5, 25, 4]
        assert (encoder.step_tag_id, encoder.label_ids, encoder.end_id) == (3, (8, 7), 1)


def test_folders_without_a_tokenizer_are_refused(tmp_path, base):
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    with pytest.raises(InputError) as caught:
        load_tokenizer(str(tmp_path))
    assert str(caught.value) == f"{tmp_path}: the model folder has no tokenizer (tokenizer.json)"
    for path in (str(tmp_path / "gone"), "./gone", "a/b/c"):
        with pytest.raises(InputError) as caught:
            load_tokenizer(path)
        there = "" if path.startswith("/") else f" (relative to the working directory: {Path.cwd() / path})"
        assert str(caught.value) == f"{path}: no such model folder{there}"
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=rf"^{tmp_path}: no tokenizer could be loaded: "):
        load_tokenizer(str(tmp_path))
    with pytest.raises(InputError, match=r"^nobody/nothing: no tokenizer could be loaded: "):
        load_tokenizer("nobody/nothing")


def test_a_tokenizer_without_an_end_is_refused():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    endless = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0})), name_or_path="endless")
    with pytest.raises(InputError, match=r"^endless: the tokenizer has no end-of-sequence token$"):
        SolutionEncoder(endless, TEMPLATE)


REAL = pytest.mark.parametrize(("name", "tag"), [("smollm2-135m", "<reponame>"), ("qwen2.5-coder-0.5b", "<|fim_pad|>")])


# ── tokenizers that are in use ────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@REAL
def test_real_tokenizers_have_tags_and_labels(models_folder, name, tag):
    real = load_tokenizer(str(models_folder / name))
    encoder = SolutionEncoder(real, Template(step_tag=tag))
    assert [real.decode([i]) for i in (encoder.step_tag_id, *encoder.label_ids)] == [tag, "-", "+"]
    with pytest.raises(InputError) as caught:
        single_token(real, "<step>", "template.step_tag")
    assert repr(tag) in str(caught.value)


# ── texts of tokens ───────────────────────────────────────────────────────────────────────────────


def byte_tokenizer(*, trim):
    """A token a byte, but for `` 1`` and the first two of the four bytes of an emoji; as GPT-2 and Qwen do it."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import ByteLevel as Offsets
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "Ġ1", "ðŁ", "<eos>"])}
    inner = Tokenizer(BPE(vocabulary, merges=[("Ġ", "1"), ("ð", "Ł")]))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False)
    if trim:
        inner.post_processor = Offsets(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, name_or_path="bytes", eos_token="<eos>")


@pytest.mark.parametrize("trim", [False, True])
def test_pieces_of_characters_of_several_tokens(trim, make_solution):
    """é has two bytes, € three, 😀 four of which two are one token; spaces stay, though spans may leave them out."""
    encoder = SolutionEncoder(byte_tokenizer(trim=trim), Template(prompt="{problem}\n"))
    record = make_solution(["é= 1€", "😀  1", "é"], finish="stop")
    assert encoder.token_texts(record) == [
        "", "é", "=", " 1", "", "", "€", "\n", "", "", "😀", " ", " 1", "\n", "", "é", "\n", "<eos>",
    ]  # fmt: skip
    record.finish = "length"
    assert encoder.token_texts(record)[-1] == "\n"
    assert len(encoder.token_texts(record)) == len(encoder.outcome(record, None).positions)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=4), st.booleans())
@settings(deadline=None, max_examples=25)
def test_pieces_are_the_solution_token_by_token(make_solution, steps, trim):
    encoder = SolutionEncoder(byte_tokenizer(trim=trim), Template(prompt="{problem}\n"))
    record = make_solution(steps, finish="stop")
    pieces, positions = encoder.token_texts(record), encoder.outcome(record, None).positions
    assert len(pieces) == len(positions)
    assert "".join(pieces) == "".join(step + "\n" for step in steps) + "<eos>"


def test_pieces_of_words(tokenizer, make_solution):
    """The quickstart's word-level tokenizer leaves spaces out; a piece has those in front of it."""
    pieces = SolutionEncoder(tokenizer, Template()).token_texts(make_solution(["b = 1", "#### 1"], finish="length"))
    assert pieces == ["b", " =", " 1", "\n", "####", " 1", "\n"]
