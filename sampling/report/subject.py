"""Find what a report is about: generators and data sets, by manifests and ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from sampling.report.summary import Subject, Summary
from stepverify.decoding import read_json
from stepverify.jsonl import MANIFEST, read_records
from stepverify.records import InputError

_MOST_NAMED = 3


class _Record(Struct):
    """Read what names a ranking, a solution or a search's result."""

    problem_id: str
    id: str = ""
    generator: str | None = None

    def __post_init__(self) -> None:
        self.id = self.id or self.problem_id


def find_subject(folders: Iterable[Path]) -> Subject:
    """Find the data sets and the generators of rankings, scored solutions or searches.

    A data set is what the ids of its problems begin with, up to the final ``/``: ``gsm8k/test``. A generator is the
    model in the manifest of `sampling generate` or `sampling search`, in this folder or in one that it derives from;
    without such a manifest, what the solutions say sampled them.

    Args:
        folders: outputs of stages, or files of records.
    """
    data: dict[str, None] = {}
    generators: dict[str, None] = {}
    for folder in folders:
        data |= {one.problem_id.rpartition("/")[0]: None for one in read_records(folder, _Record)}
        generators |= dict.fromkeys(_generators(folder))
    return Subject(data=tuple(filter(None, data)), generators=tuple(generators))


def _generators(folder: Path) -> list[str]:
    for at in _derived_from(folder):
        try:
            config = read_json(at / MANIFEST)["config"]
            return [model_name(config["engine"]["model"])]
        except (InputError, OSError, KeyError, TypeError):
            origin = at
    found = {one.generator: None for one in read_records(origin, _Record) if one.generator}
    return list(found)


def _derived_from(folder: Path) -> Iterator[Path]:
    """Yield a folder, then those that it derives from."""
    passed = set[Path]()
    while folder.exists() and folder not in passed:
        yield folder
        passed.add(folder)
        try:
            folder = Path(read_json(folder / MANIFEST)["inputs"]["input"]["path"])
        except (InputError, OSError, KeyError, TypeError):
            return


def model_name(model: Any) -> str:
    """Return a model's name: two parts of its path, without ``export``.

    ``runs/quickstart/generator/export`` → ``quickstart/generator``; ``Qwen/Qwen2.5-0.5B`` stays.
    """
    parts = [part for part in str(model).rstrip("/").split("/") if part]
    if parts[-1:] == ["export"] and len(parts) > 1:
        parts.pop()
    return "/".join(parts[-2:])


def title(summary: Summary) -> str:
    """Name task, data, generator and N: ``Best-of-N on gsm8k/test with Qwen/Qwen2.5-0.5B, N = 16``."""
    task = "Verifiers"
    if summary.searches:
        task = "Search"
    if summary.accuracy:
        task = "Best-of-N and search" if summary.searches else "Best-of-N"
    said = task + _named("on", summary.subject.data, "data sets") + _named("with", summary.subject.generators, "models")
    return f"{said}, N = {summary.accuracy.num_samples}" if summary.accuracy else said


def _named(word: str, names: tuple[str, ...], kind: str) -> str:
    if not names:
        return ""
    return f" {word} {', '.join(names)}" if len(names) <= _MOST_NAMED else f" {word} {len(names)} {kind}"
