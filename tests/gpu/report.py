"""The report of a run, in a form that can be pasted into an issue: ``report.md``, and ``report.json`` beside it.

Both lie in ``runs/gpu``, or where STEPVERIFY_GPU_REPORT says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("STEPVERIFY_GPU_REPORT", ROOT / "runs" / "gpu"))
FIGURES, HANG, BROKEN = "figures.jsonl", "hang.txt", "broken.txt"


def begin() -> None:
    """Forget the last run."""
    for name in (FIGURES, HANG, BROKEN):
        (FOLDER / name).unlink(missing_ok=True)


def _append(name: str, text: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / name).open("a", encoding="utf-8") as file:
        file.write(text)


def figure(name: str, test: str, figures: dict[str, Any]) -> None:
    """Add figures to the report; they survive a process that is ended."""
    _append(FIGURES, json.dumps({"name": name, "test": test, **figures}) + "\n")


def broken(error: str) -> None:
    """Note that the card no longer answers a process."""
    _append(BROKEN, error.partition("\n")[0] + "\n")


@contextmanager
def hang_file(test: str, seconds: float) -> Iterator[Any]:
    """Open a file for the traces of a test that hangs; nothing is left of one that does not."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"hang-{os.getpid()}.txt"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{test}: ended after {seconds:.0f} seconds\n")
        file.flush()
        yield file
    path.unlink()


def figures() -> list[dict[str, Any]]:
    path = FOLDER / FIGURES
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def end(terminal: Any, mode: str, limit: float) -> None:
    """Write and print the report, if GPU tests have run."""
    outcomes = _outcomes(terminal)
    if not any(kind in ("passed", "failed", "error") for kind, *_ in outcomes):
        return
    hangs = [path.read_text() for path in sorted(FOLDER.glob("hang-*.txt"))]
    for path in FOLDER.glob("hang-*.txt"):
        path.unlink()
    if hangs:
        _append(HANG, "\n".join(hangs))
    dead = (FOLDER / BROKEN).read_text().splitlines() if (FOLDER / BROKEN).is_file() else []
    seconds = time.time() - float(os.environ["STEPVERIFY_GPU_STARTED"])
    everything = {
        "mode": mode, "seconds": round(seconds, 1), "limit": limit, "figures": figures(), "hangs": hangs, "broken": dead,
        "outcomes": [dict(zip(("outcome", "test", "seconds", "reason"), row, strict=True)) for row in outcomes],
    }  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "report.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    text = markdown(everything)
    (FOLDER / "report.md").write_text(text, encoding="utf-8")
    terminal.section("GPU report")
    terminal.write_line(text)
    terminal.write_line(f"{FOLDER / 'report.md'} and report.json: to paste into an issue")


def _outcomes(terminal: Any) -> list[tuple[str, str, float, str]]:
    """(outcome, test, seconds, reason) of the tests in this folder, in order; one that failed twice is there once."""
    found: dict[str, tuple[str, str, float, str]] = {}
    for kind in ("passed", "skipped", "xfailed", "failed", "error"):
        for one in terminal.stats.get(kind, []):
            if not (test := getattr(one, "nodeid", "")).startswith("tests/gpu/"):
                continue
            reason = ""
            if kind in ("skipped", "xfailed"):
                said = one.longrepr[2] if isinstance(one.longrepr, tuple) else getattr(one, "wasxfail", "")
                reason = str(said).removeprefix("Skipped: ")
            elif kind != "passed":
                crash = getattr(one.longrepr, "reprcrash", None)
                reason = (crash.message if crash else str(one.longrepr)).strip().partition("\n")[0]
            found[test] = (kind, test.removeprefix("tests/gpu/"), round(getattr(one, "duration", 0.0), 1), reason)
    return list(found.values())


def markdown(everything: dict[str, Any]) -> str:
    """Render machine, figures, failures and skipped tests."""
    counts: dict[str, int] = {}
    for one in everything["outcomes"]:
        counts[one["outcome"]] = counts.get(one["outcome"], 0) + 1
    said = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    lines = [f"### `make test-gpu`: {said} in {everything['seconds']:.0f} of {everything['limit']:.0f} s", ""]
    if everything["mode"] == "cpu":
        lines += ["A dry run on the CPU: no figure below says anything of a GPU.", ""]
    lines += ["| what | figures |", "|---|---|"]
    for one in everything["figures"]:
        values = ", ".join(f"{key} {_shown(value)}" for key, value in one.items() if key not in ("name", "test"))
        lines.append(f"| {one['name']} | {values} |")
    for title, kinds in (("Failed", ("failed", "error")), ("Skipped", ("skipped", "xfailed"))):
        rows = [one for one in everything["outcomes"] if one["outcome"] in kinds]
        if rows:
            lines += ["", f"{title}:", ""] + [f"- `{one['test']}`: {one['reason'][:300]}" for one in rows]
    for error in everything["broken"]:
        lines += ["", f"The card stopped answering a process: {error}"]
    for hang in everything["hangs"]:
        lines += ["", "Did not end:", "", "```", hang.strip()[-3000:], "```"]
    slowest = sorted(everything["outcomes"], key=lambda one: -one["seconds"])[:8]
    lines += ["", "Slowest: " + ", ".join(f"{one['test'].split('::')[-1]} {one['seconds']:.0f} s" for one in slowest)]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
