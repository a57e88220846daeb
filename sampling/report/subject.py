"""Find what a report is about: generators and data sets, by manifests and ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from sampling.report.summary import Subject, Summary
from sampling.search.finished import FinishedSearch
from stepverify.decoding import read_json
from stepverify.jsonl import MANIFEST, read_records

_MOST_NAMED = 3


class _Record(Struct):
    """Read what names a ranking, a solution or a search's result."""

    problem_id: str
    id: str = ""
    generator: str | None = None

    def __post_init__(self) -> None:
        self.id = self.id or self.problem_id


def find_subject(folder: Path | None, searches: Iterable[FinishedSearch] = ()) -> Subject:
    """Find the data sets and the generators of rankings or scored solutions, and of searches.

    A data set is what the ids of its problems begin with, up to the final ``/``: ``gsm8k/test``. A generator is the
    model in the manifest of `sampling generate` or `sampling search`, in this folder or in one that it derives from;
    without such a manifest, what the solutions say sampled them.

    Args:
        folder: rankings or scored solutions, a folder or a file; None without such.
        searches: finished searches.
    """
    data: dict[str, None] = {}
    generators: dict[str, None] = {}
    if folder is not None:
        data |= {_data_set(one.problem_id): None for one in read_records(folder, _Record)}
        generators |= dict.fromkeys(_generators(folder))
    for search in searches:
        data |= {_data_set(problem): None for problem in search.results}
        generators |= dict.fromkeys(_configured(search.config))
    return Subject(data=tuple(filter(None, data)), generators=tuple(generators))


def _data_set(problem_id: str) -> str:
    return problem_id.rpartition("/")[0]


def _configured(config: Any) -> list[str]:
    """Return the model of a stage's configuration, if it has an engine."""
    try:
        return [model_name(config["engine"]["model"])]
    except (KeyError, TypeError):
        return []


def _generators(folder: Path) -> list[str]:
    origin = folder
    for at, manifest in _derived_from(folder):
        if manifest.get("stage") in ("generate", "search") and (found := _configured(manifest.get("config"))):
            return found
        origin = at
    return list({one.generator: None for one in read_records(origin, _Record) if one.generator})


def _derived_from(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield a folder with its manifest, then those that it derives from, as far as they are there."""
    passed = set[Path]()
    while folder not in passed and (folder / MANIFEST).is_file():
        manifest = read_json(folder / MANIFEST)
        yield folder, manifest
        passed.add(folder)
        try:
            folder = Path(manifest["inputs"]["input"]["path"])
        except (KeyError, TypeError):
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
