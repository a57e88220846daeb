import re
from html.parser import HTMLParser

import pytest

from sampling.report.viewer import choose, shown, to_page
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import InputError, Solution
from tests.helpers.rankings import rankings


def solution(index, values, token_texts=None, *, correct=True, steps=("1 + 1", "= 2"), name="orm"):
    return Solution(
        id=f"p#{index}", problem_id="p", problem="1 < 2?", answer="2", predicted="2" if correct else "3", correct=correct,
        steps=list(steps), scores={name: values}, token_texts={name: token_texts} if token_texts else {},
    )  # fmt: skip


def test_a_character_of_several_tokens_has_the_value_of_the_last():
    """Values 0.9 0.1 0.2 0.8 of "a", two thirds of "€" and its end: "€" has 0.8, and the fall is from 0.9 to 0.8."""
    found = shown(solution(0, [0.9, 0.1, 0.2, 0.8], ["a", "", "", "€"]), "orm", "last")
    assert (found.texts, found.values, found.fall) == (["a", "€"], [0.9, 0.8], 1)
    assert found.depth() == pytest.approx(0.1)


def test_values_of_steps_are_shown_and_the_last_one_alone_is_not():
    steps = shown(solution(0, [0.2, 0.8]), "orm", "min")
    assert (steps.texts, steps.fall, steps.score) == (["1 + 1\n", "= 2\n"], None, 0.2)
    assert shown(solution(0, [0.8]), "orm", "last") is None
    assert shown(solution(0, []), "orm", "last") is None


def test_the_most_extreme_solutions_are_chosen(tmp_path):
    rows = [
        solution(0, [0.5, 0.9], correct=True), solution(1, [0.5, 0.7], correct=True),
        solution(2, [0.5, 0.8], correct=False), solution(3, [0.9, 0.1], correct=False), solution(4, [0.5, 0.95], correct=False),
        solution(5, [0.9, 0.1], correct=True),
    ]  # fmt: skip
    write_records(tmp_path / "s.jsonl", rows)
    chosen = choose(tmp_path / "s.jsonl", {}, 2)["orm"]
    ids = {kind: [found.solution.id for found in kinds] for kind, kinds in chosen.items()}
    assert ids == {"incorrect": ["p#4", "p#2"], "correct": ["p#0", "p#1"], "fall": ["p#3", "p#5"]}


class Spans(HTMLParser):
    """Class, title and text of every span within <pre>."""

    def __init__(self):
        super().__init__()
        self.inside, self.found = False, []

    def handle_starttag(self, tag, attrs):
        self.inside |= tag == "pre"
        if self.inside and tag == "span":
            self.found.append([dict(attrs)["class"], dict(attrs)["title"], ""])

    def handle_endtag(self, tag):
        self.inside &= tag != "pre"

    def handle_data(self, data):
        if self.inside:
            self.found[-1][2] += data


def test_the_page_gives_every_text_its_value(tmp_path):
    pieces = ["1", " <b>", "\n", "", "😀", "</s>"]
    write_records(tmp_path / "s.jsonl", [solution(0, [0.5, 1.0, 0.96, 0.3, 0.0, 0.04], pieces, correct=False)])
    page = to_page(choose(tmp_path / "s.jsonl", {}, 1))
    spans = Spans()
    spans.feed(page)
    assert spans.found[: len(spans.found) // 2] == [
        ["v5", "0.500", "1"], ["v10", "1.000 (+0.500)", " <b>"], ["v10", "0.960 (-0.040)", "↵\n"],
        ["v0 fall", "0.000 (-0.960)", "😀"], ["v0", "0.040 (+0.040)", "</s>"],
    ]  # fmt: skip
    assert "1 &lt; 2?" in page
    assert "falls from 0.960 to 0.000" in page
    assert not re.search(r"https?://|<script|url\(", page)


def test_the_report_writes_the_page_where_it_is_asked_for(tmp_path, capsys):
    data = rankings(tmp_path / "in")
    write_records(tmp_path / "s.jsonl", [solution(0, [0.5, 0.9])])
    report(data, output=tmp_path / "out", scores=tmp_path / "s.jsonl", num_bootstrap=10, tokens=1)
    assert "p#0" in (tmp_path / "out/tokens.html").read_text()
    assert "tokens.html" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"tokens: .*together with scores"):
        report(data, output=tmp_path / "out", num_bootstrap=10, tokens=1)
    write_records(tmp_path / "s.jsonl", [solution(0, [0.9])])
    with pytest.raises(InputError, match="no graded solutions with a value per token"):
        report(data, output=tmp_path / "out", scores=tmp_path / "s.jsonl", num_bootstrap=10, tokens=1)
