"""Solutions that state no answer: counted, shown and said, never turned into incorrect labels in silence."""

import json

from sampling.engines import Completion, Engine
from sampling.labelling import Rollouts
from sampling.labelling.answer_fallback import Unstated
from sampling.stages.generate import generate
from sampling.stages.grade import grade
from sampling.stages.label import label
from stepverify.jsonl import write_records
from stepverify.records import Problem, Solution
from stepverify.template import Template
from tests.helpers.engines import CodePoints
from tests.helpers.problems import Given

TEMPLATE = Template(prompt="Q{problem}\n")


def solution(sample, text, finish="stop"):
    return Solution(id=f"p#{sample}", problem_id="p", problem="q", steps=text.split("\n"), answer="5", finish=finish)


def labelled(folder, solutions, **options):
    write_records(folder / "in.jsonl", solutions)
    label(folder / "in.jsonl", folder / "out", **options)
    return json.loads((folder / "out/manifest.json").read_text())["summary"]


def test_more_than_a_twentieth_is_warned_of_with_three_endings(tmp_path, capsys):
    """4 of 20 end by themselves without an answer; the one that was cut off could not have stated any."""
    stated = [solution(i, "#### 5") for i in range(15)]
    prose = [solution(20 + i, f"{'so ' * 60}\nIt takes 5 days, case {i}.") for i in range(4)]
    summary = labelled(tmp_path, [*stated, *prose, solution(30, "and then", "length")])
    assert (summary["unstated"], summary["without_answer"], summary["correct"]) == (4, 5, 15)
    said = capsys.readouterr().err
    assert "warning: 4 of 20 solutions (20.0%) state no recognisable answer; they count as incorrect" in said
    assert "`answer_fallback: conclusion` reads the last result" in said
    endings = [line.strip() for line in said.splitlines() if line.startswith("    …")]
    assert [line[-24:] for line in endings] == [f" It takes 5 days, case {i}."[-24:] for i in range(3)]
    assert max(map(len, endings)) == 121


def test_a_twentieth_is_counted_in_silence(tmp_path, capsys):
    summary = labelled(tmp_path, [*(solution(i, "#### 5") for i in range(19)), solution(20, "no more")])
    assert summary["unstated"] == 1
    assert "warning" not in capsys.readouterr().err


def test_what_the_option_reads_is_said_too(tmp_path, capsys):
    summary = labelled(
        tmp_path, [solution(0, "It takes 5 days."), solution(1, "#### 5")], answer_fallback="last_number"
    )
    assert (summary["unstated"], summary["without_answer"], summary["correct"]) == (1, 0, 2)
    said = capsys.readouterr().err
    assert "warning: 1 of 2 solutions (50.0%) state no recognisable answer" in said
    assert "`answer_fallback: last_number` still read a number from each" in said


def test_grade_warns_of_whole_solutions_alone(tmp_path, capsys):
    rows = [{"id": "a", "gold": "5", "pred": "It takes 5 days."}, {"id": "b", "gold": "5", "pred": "#### 5"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl", num_workers=1)
    assert "warning" not in capsys.readouterr().err
    grade(tmp_path / "in.jsonl", tmp_path / "out.jsonl", solutions=True, num_workers=1)
    assert "warning: 1 of 2 solutions (50.0%) state no recognisable answer" in capsys.readouterr().err


class Mumbling(Engine):
    """Draws solutions with an answer, and completions of prefixes without one."""

    model, tokenizer = "mumbling", CodePoints()

    def identity(self):
        return {"engine": "mumbling"}

    async def complete(self, request, options):
        begun = "".join(map(chr, request.prompt_ids)).count("\n") > 1
        text = "well, 5" if begun else "one\n#### 5"
        return [Completion(list(map(ord, text)), text, "stop")] * request.n


def test_rollouts_without_an_answer_are_warned_of(tmp_path, capsys):
    given = Given(Problem(id="p", problem="q", answer="5"))
    generate(Mumbling(), given, tmp_path / "sampled", num_samples=2, template=TEMPLATE)
    label(tmp_path / "sampled", tmp_path / "labels", Rollouts(Mumbling(), template=TEMPLATE))
    summary = json.loads((tmp_path / "labels/manifest.json").read_text())["summary"]
    said = capsys.readouterr().err
    number = summary["rollouts"]
    assert number == summary["rollouts_without_answer"] > 0
    assert f"warning: {number} of {number} rollouts (100.0%) state no recognisable answer" in said
    assert "few_shot" in said


def test_nothing_is_said_of_nothing(capsys):
    Unstated("solutions").warn("advice")
    assert capsys.readouterr().err == ""
