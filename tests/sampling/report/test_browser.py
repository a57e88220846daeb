"""What the solution browser's page holds: entries, flags, shards, and nothing that could run."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.report.browser import Describer, Sources, browse_report, shards
from sampling.report.browser.columns import Columns
from sampling.report.browser.entries import Flag, body
from sampling.report.browser.page import page
from sampling.report.browser.shards import Shards, Spool
from sampling.stages.report import report
from stepverify.jsonl import write_records
from stepverify.records import InputError, Ranking, StepLabel
from tests.helpers.browsing import read_page, solution, solutions_of
from tests.helpers.rankings import rankings

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!-- <script>",
    "\u2028\u0000\u007f",
    "<b>&amp;</b>",
    "\\frac{1}{2} $x$",
]


def test_an_entry_by_hand():
    """The last value of prm is 0.8, its first below 1/2 is that of step 2; step 2 is labelled incorrect; orm gives 0.3.

    The scores differ by 0.5 and lie on both sides of 1/2; the answer is incorrect, so prm's 0.8 is a confident error.
    """
    one = solution(
        0, {"prm": [0.9, 0.4, 0.8], "orm": [0.3]}, steps="abc", labels=[1, -1, -1], correct=False, predicted="2"
    )
    describer = Describer()
    entry = describer.entry(one)
    assert entry | {"judged": None, "spread": None} == {
        "id": "p#0", "correct": False, "predicted": "2", "steps": 3, "tokens": None, "characters": 5, "finish": None,
        "error": 1, "judged": None, "spread": None, "disagree": True,
    }  # fmt: skip
    assert entry["spread"] == pytest.approx(0.5)
    assert entry["judged"] == {"prm": (0.8, 1, Flag.CONFIDENT), "orm": (0.3, None, 0)}
    assert {name: seen.kind for name, seen in describer.verifiers.items()} == {"prm": "step", "orm": "outcome"}


@pytest.mark.parametrize(
    ("values", "labels", "correct", "expected"),
    [
        ([0.9, 0.9], [1, -1], False, (-1, Flag.CONFIDENT | Flag.MISSED)),
        ([0.4, 0.9], [1, -1], False, (0, Flag.CONFIDENT | Flag.MISSED)),
        ([0.5, 0.2], [1, -1], False, (1, 0)),
        ([0.9, 0.2], [1, 1], True, (1, Flag.DOUBTED | Flag.FALSE_ALARM)),
        ([0.9, 0.5], [1, 1], True, (-1, 0)),
        ([0.9, 0.2], [None, -1], None, (1, 0)),
        ([0.2, 0.2], [(1, 8), (0, 8)], True, (0, Flag.DOUBTED | Flag.MISSED)),
    ],
)
def test_flags(values, labels, correct, expected):
    """1/2 itself is no error and a high score; a step that any rollout saves is correct; after an unlabelled step the
    first error is unknown, and without a grade no score is odd."""
    entry = Describer().entry(solution(0, {"prm": values}, labels=labels, correct=correct))
    assert entry["judged"]["prm"][1:] == expected


def test_thresholds_aggregations_and_neutral_steps_are_those_of_the_report():
    """The product 0.9 · 0.6 = 0.54; 0.6 is below 0.7; a neutral first step is an error where it counts as one."""
    one = solution(0, {"prm": [0.9, 0.6]})
    one.step_labels = [StepLabel(rating=0), None]
    entry = Describer({"prm": "prod"}, {"prm": 0.7}, "negative").entry(one)
    assert entry["judged"]["prm"][0] == pytest.approx(0.54)
    assert entry["judged"]["prm"][1:] == (1, Flag.MISSED)
    assert entry["error"] == 0


def test_a_verifier_without_values_says_nothing():
    entry = Describer().entry(solution(0, {"prm": [], "orm": [0.7]}))
    assert entry["judged"] == {"prm": (None, None, 0), "orm": (0.7, None, 0)}
    assert (entry["spread"], entry["disagree"]) == (None, False)


def test_a_body_keeps_counts_and_token_lengths_as_scripts_count():
    """😀 is two units of UTF-16; half of it is kept too."""
    one = solution(
        0, {"orm": [0.5, 0.25, 1 / 3]}, labels=[(3, 8), None], token_texts={"orm": ["a", "😀", "\ud83d"]},
        seed=2**60, meta={"level": 5, "long": "x" * 201, "nested": {}},
    )  # fmt: skip
    assert body(one) == {
        "steps": ["a", "b"], "separator": "\n", "values": {"orm": [0.5, 0.25, 0.3333]}, "labels": [{"k": 3, "n": 8}, None],
        "tokens": {"orm": ["a😀\ud83d", [1, 2, 1]]}, "facts": {"seed": str(2**60), "level": 5},
    }  # fmt: skip


def test_columns_shorten_what_repeats():
    describer = Describer()
    rows = [
        solution(0, {"prm": [0.1, 0.2]}, predicted="7"),
        solution(1, {"prm": [0.3, 0.9]}, predicted=None, id="other"),
    ]
    entries = [describer.entry(row) for row in rows]
    columns = Columns(describer.verifiers)
    columns.add(
        "p", "Problem", "1", entries, {"majority": "other", "shortest": "elsewhere", "oracle": None}, solutions=3
    )
    index = columns.index
    assert index["problems"] == [
        {"id": "p", "text": "Problem", "count": 2, "answer": "1", "chosen": {"majority": 1}, "solutions": 3}
    ]
    assert index["columns"]["id"] == ["#0", "=other"]
    assert (index["answers"], index["columns"]["predicted"]) == (["7"], [0, -1])
    # One without a final answer is not correct, whatever it says of itself.
    assert index["judged"] == [{"score": [0.2, 0.9], "predicted": [0, 0], "flags": [Flag.DOUBTED, Flag.CONFIDENT]}]


@given(st.lists(st.tuples(st.sampled_from("pqr"), st.text(max_size=30)), max_size=20))
def test_a_spool_returns_what_was_put_in(rows):
    with Spool() as spool:
        for key, value in rows:
            spool.add(key, [value])
        expected = {key: [[v] for k, v in rows if k == key] for key in "pqr"}
        assert {key: list(spool.values(key)) for key in "pqr"} == expected


def test_every_solution_is_in_the_page_once(tmp_path, monkeypatch):
    """Solutions of 7 problems come in turn; with shards of 300 bytes there are several, with whole problems in each."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 300)
    rows = [
        solution(i, {"prm": [i / 10, 0.5]}, problem=f"p{p}", steps=[f"{p} {i}", "b"])
        for i in range(3)
        for p in range(7)
    ]
    write_records(tmp_path / "s.jsonl", rows)
    embedded = browse_report(tmp_path / "b.html", Sources(tmp_path / "s.jsonl"), Describer(), 100)
    assert embedded.describe() == "7 problems, 21 solutions"
    _, data = read_page(tmp_path / "b.html")
    assert len({problem["solutions"] for problem in data["index"]["problems"]}) > 2
    found = {problem: [one["steps"][0] for one in bodies] for problem, bodies in solutions_of(data).items()}
    assert found == {f"p{p}": [f"{p} {i}" for i in range(3)] for p in range(7)}
    assert data["index"]["columns"]["id"] == ["#0", "#1", "#2"] * 7


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (6, "3 problems, 6 solutions"),
        (5, "2 of 3 problems, 4 of 6 solutions"),
        (1, "1 of 3 problems, 2 of 6 solutions"),
    ],
)
def test_a_limit_takes_whole_problems_and_says_so(tmp_path, limit, said):
    write_records(tmp_path / "s.jsonl", [solution(i, {}, problem=f"p{p}") for i in range(2) for p in range(3)])
    assert browse_report(tmp_path / "b.html", Sources(tmp_path / "s.jsonl"), Describer(), limit).describe() == said
    index = read_page(tmp_path / "b.html")[1]["index"]
    assert index["said"] == said
    assert [problem["id"] for problem in index["problems"]] == [f"p{p}" for p in range(int(said[0]))]
    assert index["columns"]["id"] == ["#0", "#1"] * int(said[0])


def test_no_text_can_become_a_script(tmp_path):
    """Texts are base64; the policy allows the page's two programs by their hash, and no address at all."""
    rows = [solution(i, {text: [0.5]}, steps=[text], problem=text, predicted=text) for i, text in enumerate(HOSTILE)]
    write_records(tmp_path / "s.jsonl", rows)
    browse_report(tmp_path / "b.html", Sources(tmp_path / "s.jsonl"), Describer(), 100)
    scripts, data = read_page(tmp_path / "b.html")
    assert [one["steps"] for bodies in solutions_of(data).values() for one in bodies] == [[text] for text in HOSTILE]
    assert [tag for tag, _ in scripts.attributes].count("script") == 4, "index, program, mathematics, one shard"
    assert not any(
        name.startswith("on") or name in {"src", "href"} for _, named in scripts.attributes for name in named
    )
    (policy,) = [
        named["content"] for _, named in scripts.attributes if named.get("http-equiv") == "Content-Security-Policy"
    ]
    for program in (scripts.texts["program"], data["mathematics"]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_half_a_surrogate_pair_survives(tmp_path):
    """Readers refuse it in a file; a page of one would still be whole."""
    with page(tmp_path / "b.html", "T </title>") as (file, index):
        one = Shards(file, "s")
        one.add(0, shards.dumps("\ud800"))
        one.close()
        index["title"] = "\udfff"
    text = (tmp_path / "b.html").read_text()
    assert "<title>T &lt;/title&gt;</title>" in text
    _, data = read_page(tmp_path / "b.html")
    assert (data["s0"], data["index"]) == ({"0": "\ud800"}, {"title": "\udfff"})


def test_the_report_writes_the_page(tmp_path, capsys):
    """What rankings chose is on it; the report has a link to it, unless no page is wanted."""
    data = rankings(tmp_path / "in", num_problems=2)
    rows = [json.loads(line) for line in (data / "part-00000.jsonl").read_text().splitlines()]
    rows[1]["choices"] = {"prm/best_of_n": "p1#1", "majority": None}
    write_records(data / "part-00000.jsonl", [Ranking(**row) for row in rows])
    write_records(tmp_path / "s.jsonl", [solution(i, {"prm": [0.9, i / 2]}, problem="p1") for i in range(2)])
    report(data, output=tmp_path / "out", scores=tmp_path / "s.jsonl", num_bootstrap=10)
    index = read_page(tmp_path / "out/browse.html")[1]["index"]
    assert [problem["chosen"] for problem in index["problems"]] == [{"prm/best_of_n": 1}]
    assert "browse.html: 1 problems, 2 solutions, 0." in capsys.readouterr().out
    assert '<a href="browse.html">' in (tmp_path / "out/report.html").read_text()
    report(output=tmp_path / "none", scores=tmp_path / "s.jsonl", num_bootstrap=10, browse=0)
    assert "browse.html" not in (tmp_path / "none/report.html").read_text()
    assert not (tmp_path / "none/browse.html").exists()
    with pytest.raises(InputError, match="browse: expected 0 or more, got -1"):
        report(data, output=tmp_path / "out", num_bootstrap=10, browse=-1)


def test_the_bundled_library_is_the_one_that_is_named(root):
    folder = root / "sampling/report/templates/browser/vendor"
    digest = hashlib.sha256((folder / "temml.min.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()


def test_a_page_carries_the_licence_of_what_is_in_it(root, tmp_path):
    with page(tmp_path / "b.html", "T"):
        pass
    licence = (root / "sampling/report/templates/browser/vendor/temml.LICENSE").read_text()
    assert licence.startswith("The MIT License")
    assert licence in (tmp_path / "b.html").read_text()
