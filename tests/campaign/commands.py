"""Command lines with something wrong: one line that says what, exit code 2, and no output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sampling.__main__ import STAGES, main
from tests.campaign import stages
from tests.campaign.trial import Trial, forked, judge

NAME = "commands"

_NOBODY = 65534
_ENGINE = ("--engine", "tests.campaign.stages.HashEngine")

# Stage → what it needs beside input and output, and the option and file of its input.
LINES: dict[str, tuple[list[str], str, str]] = {
    "generate": ([*_ENGINE, "--problems", "Problems"], "--problems.path", "problems.jsonl"),
    "label": ([], "--input", "solutions.jsonl"),
    "score": (['--verifiers={"a": {"class_path": "tests.campaign.stages.HashScorer", "init_args": {"name": "a"}}}'], "--input", "solutions.jsonl"),
    "search": (
        ["--engine", "tests.campaign.stages.HashSteps", "--problems", "Problems", '--template={"prompt": "{problem}\\n"}',
         '--verifier={"class_path": "tests.campaign.stages.HashScorer", "init_args": {"name": "a"}}'],
        "--problems.path", "problems.jsonl",
    ),
    "policy": (
        ['--searches={"n": "searches/n", "beam": "searches/beam"}', "--budgets", "[400]", "--num_samples", "2", "--num_bins", "2", "--num_bootstrap", "5"],
        "--held_out", "held.jsonl",
    ),
    "select": (["--per_problem", "1", "--verifier", "prm"], "--input", "scored.jsonl"),
    "calibrate": (["--num_folds", "2", "--num_subsets", "2"], "--input", "scored.jsonl"),
    "rank": (["--num_subsets", "2"], "--input", "scored.jsonl"),
    "report": (["--num_bootstrap", "5"], "--input", "rankings.jsonl"),
    "grade": ([], "--input", "pairs.jsonl"),
    "convert": ([], "--input", "scored.jsonl"),
    "compare": (["--reference", "a", "--labels.a", "scored.jsonl", "--num_bootstrap", "5"], "--labels.b", "scored.jsonl"),
}  # fmt: skip
FILES = ("policy", "calibrate", "grade", "convert")  # stages that write a file, not a folder


INPUTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "blank": lambda path: path.write_bytes(b"\n \n"),
    "an empty folder": lambda path: (path.unlink(), path.mkdir()),
    "a folder with an empty shard": lambda path: (path.unlink(), path.mkdir(), (path / "part-00000.jsonl").touch()),
    "a folder without shards": lambda path: (path.unlink(), path.mkdir(), (path / "notes.txt").write_text("x")),
    "a dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/null")),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)),
    "unreadable": lambda path: path.chmod(0),
    "unfinished": lambda path: _unfinished(path),  # noqa: PLW0108
    "twice the same": lambda path: path.write_bytes(path.read_bytes() * 2),
    "other records": lambda path: path.write_text('{"id": "a", "colour": "red"}\n'),
    "an array": lambda path: path.write_text("[]\n"),
    "compressed garbage": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00garbage"),
}  # fmt: skip

OUTPUTS: dict[str, Callable[[Path, str], object]] = {
    "another kind": lambda out, stage: out.mkdir() if stage in FILES else out.write_text("thesis"),
    "a text": lambda out, stage: out.write_text("thesis") if stage in FILES else (out.mkdir(), (out / "thesis.tex").write_text("x")),
    "a link": lambda out, stage: ((out.parent / "there").write_text("{}") if stage in FILES else (out.parent / "there").mkdir(), out.symlink_to("there")),
    "a dangling link": lambda out, stage: out.symlink_to("nowhere"),
    "a device": lambda out, stage: os.mknod(out, 0o20666, os.makedev(1, 3)) if os.geteuid() == 0 else os.mkfifo(out),
    "a pipe": lambda out, stage: os.mkfifo(out),
    "within a file": lambda out, stage: (out.parent / "file").write_text("x"),
    "a folder that may not be written": lambda out, stage: (out.parent / "closed").mkdir(mode=0o555),
    "a name too long": lambda out, stage: None,
}  # fmt: skip
_ELSEWHERE = {
    "within a file": "file/out",
    "a folder that may not be written": "closed/out",
    "a name too long": "x" * 300,
}

WORDS: dict[str, list[str]] = {
    "an unknown key": ["--colour", "red"], "a key twice removed": ["--input.path.name", "x"], "no value": ["--output"],
    "no such config": ["--config", "nowhere.yaml"], "a config that is a folder": ["--config", "."],
    "a config that is binary": ["--config", "binary.yaml"], "--set without a file": ["--set", "a=1"], "--set of nothing": ["--set", ""],
    "a word": ["hello"], "half a pair": ["--output", "\udcff"], "seed as a text": ["--seed", "many"],
    "nan": ["--seed", "nan"], "an object": ["--seed", "{}"], "a list": ["--seed", "[1]"],
}  # fmt: skip


def trials(folder: Path, size: float, seed: int) -> Iterator[Trial]:
    """Yield every wrong input, output and word of every stage; at a ``size`` below 1 every n-th of them."""
    found = [
        *((stage, "input", name) for stage in LINES for name in INPUTS),
        *((stage, "output", name) for stage in LINES for name in OUTPUTS),
        *((stage, "words", name) for stage in LINES for name in WORDS),
        *((stage, "deleted", "while it runs") for stage in LINES if stage not in FILES),
    ]
    for stage, kind, name in found[:: max(1, round(1 / size))]:
        yield Trial(f"{stage}: {kind}: {name}", f"command lines: {kind}", _Line(stage, kind, name).trial)


class _Line:
    def __init__(self, stage: str, kind: str, name: str) -> None:
        self.stage, self.kind, self.name = stage, kind, name

    def trial(self, own: Path) -> tuple[str, str]:
        stages.prepare(own)
        (own / "binary.yaml").write_bytes(bytes(range(256)))
        words, option, file = LINES[self.stage]
        path, out, more = own / file, own / "out", list[str]()
        if self.kind == "input":
            path = own / f"given{'' if 'folder' in self.name else '.jsonl'}"
            (own / file).rename(path) if self.stage != "compare" else path.write_bytes((own / file).read_bytes())
            INPUTS[self.name](path)
        elif self.kind == "output":
            out = own / _ELSEWHERE.get(self.name, "out")
            OUTPUTS[self.name](own / "out", self.stage)
        elif self.kind == "words":
            more = WORDS[self.name]
        before = {p: p.lstat().st_mode for p in own.rglob("*")}

        def work() -> None:
            os.chdir(own)
            own.chmod(0o777)
            own.parent.chmod(0o755)
            if self.name in ("unreadable", "a folder that may not be written") and os.geteuid() == 0:
                os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            if self.kind == "deleted":
                _delete_at_first_record(own / "out")
            main([self.stage, *words, option, str(path), "--output", str(out), *more])

        end = forked(work)
        outcome, said = judge(end, _names(self.kind, path, out))
        if outcome == "accepted":
            known = (self.kind, self.name) in PASSES.get(self.stage, ()) or (self.kind, self.name) in PASSES[""]
            return (outcome, said) if known else ("silent", said)
        left = [p.name for p in own.rglob("*") if p not in before and p.suffix != ".html" and self.kind != "deleted"]
        return (outcome, said) if not left else ("changed", f"{said}; left: {left[:5]}")


PASSES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (),
    "report": (("output", "a text"),), "compare": (("output", "a text"), ("input", "other records")),
}  # fmt: skip
"""What a stage may accept: reports are written beside other files."""


def _names(kind: str, path: Path, out: Path) -> list[str]:
    """What a message must name: the file, or the word."""
    if kind in ("output", "deleted"):
        return [str(out), out.name, "file", "closed"]
    return [str(path), path.name] if kind == "input" else [""]


def _unfinished(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / "part-00000.jsonl").write_bytes(content)
    (path / "manifest.json").write_text('{"stage": "x", "config": {}, "inputs": {}, "finished": false, "summary": {}}')


def _delete_at_first_record(out: Path) -> None:
    """Delete the folder as another process would, when the first record is on disk."""
    from tests.campaign.disk import Disk

    def delete(name: str, path: str) -> None:
        stages.clear(out)

    hook = Disk(out, 8, delete)
    stages.small()
    del hook


assert {*LINES} == {*STAGES}
