"""A slice of the campaign of faults: a few trials of each kind in one process, which forks for each."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import __main__ as campaign
from tests.campaign.trial import End, Trial, judge
from tests.helpers.processes import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="it forks, and reads /proc")
def test_a_slice_of_the_campaign(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table -->\n<!-- /table -->\nafter\n")
    command = [
        sys.executable,
        "-m",
        "tests.campaign",
        "--size",
        "0.01",
        "--every",
        "7",
        "--only",
        "records",
        "commands",
        "kills",
    ]
    command += ["--cold", "--stages", "select", "--results", str(tmp_path / "results"), "--readme", str(readme)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no trials found faults" in done.stdout
    total = re.search(r"\*\*all\*\* \| (\d+) \| (\d+) \| 0 \| 0 \| 0 \| 0 \| 0 \|", readme.read_text())
    assert total
    assert int(total[1]) == int(total[2]) > 10


def test_results_are_kept_and_told(tmp_path):
    """Four trials: two survive, one of them in an earlier run, which is not repeated; one is lost, one a traceback."""
    outcomes = {"a": "refused", "b": "equal", "c": "lost", "d": "traceback"}
    ran = []

    class Module:
        NAME = "some"

        @staticmethod
        def trials(folder, size, seed):
            for name, outcome in outcomes.items():
                yield Trial(
                    name, "kind", lambda own, name=name, outcome=outcome: (ran.append(name), (outcome, "said"))[1]
                )

    class Options:
        results, size, seed, minutes, every, again = tmp_path, 1.0, 0, 0.0, 1, False

    (tmp_path / "some.jsonl").write_text('{"key": "a", "kind": "kind", "outcome": "refused"}\n{"key": "b", "to')
    campaign.run(Module, tmp_path, Options)
    assert ran == ["b", "c", "d"]
    readme = tmp_path / "README.md"
    readme.write_text("x\n<!-- table -->\nold\n<!-- /table -->\ny\n")
    assert campaign.write_table(tmp_path, readme) == 2
    assert readme.read_text() == (
        "x\n<!-- table -->\n| what | tried | survived | tracebacks | losses | doublings | hangs | other faults |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|\n| kind | 4 | 2 | 1 | 1 | 0 | 0 | 0 |\n"
        "| **all** | 4 | 2 | 1 | 1 | 0 | 0 | 0 |\n<!-- /table -->\ny\n"
    )


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (End(0, "fine", ""), "accepted"), (End(None, "", "still"), "hang"), (End(-11, "", ""), "traceback"),
        (End(2, "", "campaign: a.jsonl:1: bad\n"), "refused"), (End(2, "", "campaign: bad\n"), "unnamed"),
        (End(2, "", "campaign: a.jsonl\ncampaign: a.jsonl\n"), "unnamed"),
        (End(1, "", "campaign: a.jsonl: full; the same command goes on\n"), "kept"),
        (End(1, "", "campaign: a.jsonl: ZeroDivisionError (a fault of this program; traceback: x)\n"), "traceback"),
        (End(1, "", "Traceback (most recent call last):\n"), "traceback"),
    ],
)  # fmt: skip
def test_ends_are_judged(end, outcome):
    assert judge(end, ["a.jsonl"])[0] == outcome


def test_the_readme_has_the_table():
    text = Path(campaign.README).read_text()
    assert text.index("<!-- table -->") < text.index("<!-- /table -->")
