"""Choose the reader of a file or Hub data set by its first row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from stepverify import readers
from stepverify.foreign import name_reader
from stepverify.jsonl import read_json_lines, shards
from stepverify.readers.base import Reader
from stepverify.readers.tables import is_records, rows
from stepverify.records import InputError, Problem, Solution

Need = Literal["steps", "outcomes", "worked", "problems"]

READ = 2000  # solutions that are looked at
_WANTED = {
    "steps": "solutions with step labels", "outcomes": "solutions with an outcome label ('correct')",
    "worked": "worked solutions", "problems": "problems",
}  # fmt: skip
_FORMATS = {
    "Stepwise": "TRL's step-labelled rows", "OpenR": "OpenR's rows", "PRM800K": "PRM800K's rows",
    "MathShepherd": "Math-Shepherd's rows", "OpenRLHF": "OpenRLHF's rows", "RLHFlow": "RLHFlow's conversations",
    "ProcessBench": "ProcessBench's rows", "OmegaPRM": "OmegaPRM's trees", "GSM8K": "GSM8K's rows",
    "MATH": "MATH's rows", "Solutions": "solutions", "Problems": "problems",
}  # fmt: skip
# Field → usual names of its column, the likeliest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "query", "instruction", "input"),
    "steps": ("steps", "completions", "solution", "response", "completion", "output", "rationale", "reasoning"),
    "step_labels": ("step_labels", "labels", "ratings", "step_ratings", "rewards"),
    "correct": ("correct", "is_correct", "label", "outcome", "passed"),
    "answer": ("answer", "gold", "ground_truth", "reference_answer", "expected_answer", "final_answer", "target"),
}
_FIELDS: dict[Need, tuple[tuple[str, ...], tuple[str, ...]]] = {  # needed, and taken where they are there
    "steps": (("problem", "steps", "step_labels"), ("answer",)),
    "outcomes": (("problem", "steps", "correct"), ("answer",)),
    "worked": (("problem", "steps"), ("correct", "answer")),
    "problems": (("problem",), ("answer",)),
}


@dataclass(frozen=True)
class Source:
    """Hold the chosen reader of rows.

    Attributes:
        reader: name of its class.
        options: its arguments, without folds.
        columns: of the first row, for messages.
    """

    reader: str
    options: dict[str, Any]
    columns: list[str] = field(default_factory=list)

    def make(self, **more: Any) -> Reader:
        """Create the reader."""
        made: Reader = getattr(readers, self.reader)(**self.options, **more)
        return made

    @property
    def has_folds(self) -> bool:
        """Tell whether the reader divides problems into folds."""
        cls = getattr(readers, self.reader)
        return any("fold" in inspect.signature(c.__init__).parameters for c in cls.__mro__ if c is not object)

    def describe(self) -> str:
        """Describe format and columns."""
        columns = self.options.get("columns")
        renamed = " with " + ", ".join(f"{k} as {v}" for k, v in columns.items()) if columns else ""
        return f"{_FORMATS[self.reader]}{renamed} (reader {self.reader})"


def find_source(
    path: str, need: Need, *, split: str | None = None, name: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:  # fmt: skip
    """Choose the reader of a file, a folder of a stage or a Hub data set.

    Args:
        path: as readers take it.
        need: what the rows must hold.
        split: split of a Hub data set; None is the reader's default.
        name: configuration of a Hub data set, if it has several.
        columns: their column → our field; None looks for usual names where the format is unknown.

    Raises:
        InputError: no rows, or rows that are of no known format, naming their columns.
    """
    where, row = _first_row(path, split or "train", name)
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with columns, got {row!r:.80}")
    given = {key: value for key, value in (("split", split), ("name", name)) if value is not None}
    seen = sorted(map(str, row))
    if columns:
        return Source(_own(need), {"path": path, "columns": dict(columns), **given}, seen)
    if (known := _known(path, row, need)) is not None:
        if known == "ProcessBench" and need != "problems":
            raise InputError(f"{where}: {_FORMATS[known]} are for evaluation (sampling score); train on others")
        if known == "GSM8K":  # whose configuration is main
            given.pop("name", None)
        return Source(known, {"path": path, **given}, seen)
    found = _guess(row, need)
    if missing := [name for name in _FIELDS[need][0] if name not in found.values()]:
        raise InputError(
            f"{where}: expected {_WANTED[need]}, found the columns {seen}: none of a known format, and none for "
            f"{', '.join(missing)}; say which by --columns COLUMN={missing[0]}"
        )
    renamed = {theirs: ours for theirs, ours in found.items() if theirs != ours}
    own = {"columns": renamed} if renamed else {}
    return Source(_own(need), {"path": path, **own, **given}, seen)


def read_some(source: Source, path: str, need: Need) -> list[Solution]:
    """Read the first solutions, and check that they hold what is needed.

    Raises:
        InputError: a row that cannot be read, or no solution with what is needed.
    """
    reader = source.make()
    found = list(islice(reader.solutions(), READ))
    if not found:
        raise InputError(
            f"{path}: read as {source.describe()}, it holds no {_WANTED[need]}; columns {source.columns}"
            + (f"; left out: {reader.left_out}" if reader.left_out else "")
        )
    labelled = any(any(s.step_labels or ()) for s in found)
    graded = any(s.correct is not None for s in found)
    if need == "steps" and not labelled:
        raise InputError(
            f"{path}: {source.describe()} without step labels (columns {source.columns}): make them by sampling label"
            + (", or train on outcomes by stepverify init orm" if graded else "")
        )
    if need == "outcomes" and not graded:
        raise InputError(
            f"{path}: {source.describe()} without outcome labels ('correct'; columns {source.columns}): make them by "
            "sampling label" + (", or train on step labels by stepverify init prm" if labelled else "")
        )
    if need == "worked" and labelled and not graded:
        raise InputError(
            f"{path}: {source.describe()} have step labels, so some are incorrect, and a generator would learn them; "
            "give worked solutions, or solutions with 'correct'"
        )
    return found


def read_problems_of(source: Source, path: str, limit: int | None = None) -> list[Problem]:
    """Read the problems of a source, each once.

    Raises:
        InputError: a row that cannot be read, or no problem.
    """
    found: dict[str, Problem] = {}
    for problem in source.make().problems():
        found.setdefault(problem.id, problem)
        if limit is not None and len(found) >= limit:
            break
    if not found:
        raise InputError(f"{path}: no problem was read as {source.describe()}")
    return [*found.values()]


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """Parse ``COLUMN=FIELD`` words.

    Raises:
        InputError: another form.
    """
    for word in words:
        if "=" not in word.strip("="):
            raise InputError(f"--columns {word}: expected COLUMN=FIELD, such as question=problem")
    return dict((theirs, ours) for theirs, _, ours in (word.rpartition("=") for word in words))


def _first_row(path: str, split: str, name: str | None) -> tuple[str, Any]:
    def every() -> Iterator[tuple[str, Any]]:
        if Path(path).is_dir() and any(Path(path).glob("*.jsonl*")):
            for shard in shards(Path(path)):
                yield from read_json_lines(shard)
        else:
            yield from rows(path, split, name)

    first = next(every(), None)
    if first is None:
        raise InputError(f"{path}: has no rows")
    return first


def _known(path: str, row: Mapping[str, Any], need: Need) -> str | None:
    """Return the reader of a known format."""
    keys = row.keys()
    if is_records(path) and {"id", "problem", "steps"} <= keys and keys <= set(Problem.__struct_fields__):
        return "Problems"
    if is_records(path) and keys <= set(Solution.__struct_fields__) and {"id", "problem_id", "steps"} <= keys:
        return "Solutions"
    if is_records(path) and {"id", "problem"} <= keys and keys <= set(Problem.__struct_fields__):
        return "Problems"
    if "process" in keys and keys & {"question", "q"} and keys & {"label", "labels"}:
        return "OpenR"
    if {"question", "final_answer", "reasoning_steps"} <= keys:
        return "OmegaPRM"
    if (known := name_reader(row)) is not None and _fits(known, row):
        return known
    if need in ("worked", "problems"):
        texts = {key for key in keys if isinstance(row[key], str)}
        if {"question", "answer"} <= texts and "\n####" in f"\n{row['answer']}":
            return "GSM8K"
        if {"problem", "solution"} <= texts:
            return "MATH"
    return None


def _fits(reader: str, row: Mapping[str, Any]) -> bool:
    """Tell whether the values have the types of a format, whose names of columns are common words."""
    formats: dict[str, dict[str, type]] = {
        "MathShepherd": {"input": str, "label": str}, "OpenRLHF": {"input": str, "value": list},
        "RLHFlow": {"conversations": list}, "Stepwise": {"completions": list}, "ProcessBench": {"label": int},
        "PRM800K": {"label": dict, "question": dict},
    }  # fmt: skip
    return all(isinstance(row[key], kind) for key, kind in formats.get(reader, {}).items())


def _guess(row: Mapping[str, Any], need: Need) -> dict[str, str]:
    """Return their column → our field, by usual names."""
    found: dict[str, str] = {}
    needed, further = _FIELDS[need]
    for ours in (*needed, *further):
        theirs = next((name for name in _NAMES[ours] if name in row and name not in found), None)
        if theirs is not None:
            found[theirs] = ours
    if need == "worked" and "steps" not in found.values() and isinstance(row.get("answer"), str):
        found["answer"] = "steps"  # question and worked answer
    return found


def _own(need: Need) -> str:
    return "Problems" if need == "problems" else "Solutions"
