"""Merge the shards of a job array: check their manifests, copy their records, sum their figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import glob
from pathlib import Path
from typing import Any

from sampling.runtime.problem_shard import ProblemShard, shard_number
from sampling.runtime.shards import list_shards
from sampling.runtime.store import Store, kept_records
from stepverify import trial
from stepverify.jsonl import MANIFEST, fingerprint, read_records
from stepverify.keys import KeySet
from stepverify.manifest import first_difference, read_manifest
from stepverify.records import InputError, Record, Solution, record_key

COPIED = 512
"""Copied records per write and sync to disk."""


@dataclass(frozen=True)
class Merged:
    """Hold the shards that a run merges; without one it is false.

    Attributes:
        of: number of shards.
        folders: number of a shard → output of its job.
        summaries: number of a finished shard → summary.
        inputs: number of a shard → digest of its input; empty for stages without one.
        others: the folders of ``reuse_from`` that are no shards.
    """

    of: int = 1
    folders: dict[int, Path] = field(default_factory=dict)
    summaries: dict[int, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)
    others: Sequence[Path] = ()

    def __bool__(self) -> bool:
        return bool(self.folders)

    def holds(self, problem_id: str) -> bool:
        """Tell whether a finished shard holds a problem, so that nothing of it is made here."""
        return bool(self.folders) and shard_number(problem_id, self.of) in self.summaries

    def records(self, kind: type[Record], nested: str = "", number: int | None = None) -> Iterator[Record]:
        """Read the records of all shards, or of one, without torn final lines.

        Args:
            kind: of the records.
            nested: subfolder of the outputs; one that is not there has no records.
            number: of one shard.

        Raises:
            InputError: a problem that belongs to another shard.
        """
        for own, folder in self.folders.items() if number is None else [(number, self.folders[number])]:
            if not (folder / nested / MANIFEST).is_file():
                continue
            for record in kept_records(folder / nested, kind):
                problem_id = getattr(record, "problem_id", None)
                if problem_id is not None and (found := shard_number(problem_id, self.of)) != own:
                    raise InputError(
                        f"reuse_from: {folder / nested}: {record_key(record)} belongs to shard {found}/{self.of}, and "
                        f"this is {own}/{self.of}; its records were moved or edited"
                    )
                yield record

    def copy(self, store: Store[Record], nested: str = "") -> None:
        """Write the records of all shards to a store that lacks them."""
        if self.folders:
            copy(self.records(store.kind, nested), store)

    def check_contents(self, source: Path, same: Callable[[Solution], str]) -> None:
        """Check that shards were made of the solutions that this run reads.

        Nothing is read if all have finished and had this run's input. They may have had the outputs of an earlier
        stage's shards.

        Args:
            source: the input of this run.
            same: describes what the stage leaves of a solution as it was.

        Raises:
            InputError: naming the shard, and a solution that is not in the input.
        """
        here = fingerprint(source) if self.folders else ""
        known = self.inputs.items()
        unlike = [number for number, digest in known if digest != here or number not in self.summaries]
        if not unlike:
            return
        found, sizes = KeySet(), dict.fromkeys(unlike, 0)
        for solution in read_records(source, Solution):
            if (number := shard_number(solution.problem_id, self.of)) in sizes:
                found.add(same(solution))
                sizes[number] += 1
        for number, size in sizes.items():
            count, folder = 0, self.folders[number]
            for count, solution in enumerate(self.records(Solution, number=number), start=1):  # noqa: B007
                if same(solution) not in found:
                    raise InputError(
                        f"reuse_from: {folder}: solution {solution.id} was another one there than in {source}, or "
                        "is not in it; run that shard again"
                    )
            if number in self.summaries and count != size:
                raise InputError(
                    f"reuse_from: {folder}: was made of {count:,} solutions, {source} has {size:,} of shard "
                    f"{number}/{self.of}; run that shard again"
                )

    def in_order(self, solutions: Iterable[Solution]) -> Iterator[Solution]:
        """Yield the shards' records of solutions in the order of these.

        Shards were written in the order of their input. Where that is not the order of ``solutions``, the rest follows
        shard after shard.
        """
        streams = {number: self.records(Solution, number=number) for number in self.folders}
        heads = {number: next(stream, None) for number, stream in streams.items()}
        for solution in solutions:
            number = shard_number(solution.problem_id, self.of)
            head = heads.get(number)
            if head is not None and head.id == solution.id:
                yield head
                heads[number] = next(streams[number], None)
        for number, head in heads.items():
            if head is not None:
                yield head
                yield from streams[number]

    def add(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Add the figures of the shards' runs to those of this run: ``seconds``, and all that end in ``_this_run``."""
        figures = dict(own)
        for summary in self.summaries.values():
            for key in summary:
                if key == "seconds" or key.endswith("_this_run"):
                    figures[key] = figures.get(key, 0) + summary[key]
        return figures | ({"seconds": round(figures["seconds"], 2)} if self.summaries else {})

    def total(self, key: str) -> int:
        """Return the sum of a number that only shards with more than none have in their summaries."""
        return sum(summary.get(key, 0) for summary in self.summaries.values())

    def say(self, output: Path, made: int, what: str) -> None:
        """Print how many shards were merged, and how many records this run made itself."""
        if self.folders:
            print(f"{output}: {len(self.folders)} of {self.of} shards merged; {made:,} {what} made here")


def copy(records: Iterable[Record], store: Store[Record]) -> None:
    """Write the records that a store lacks, many at a time."""
    batch: list[Record] = []
    for record in records:
        if record_key(record) not in store.done:
            batch.append(record)
        if len(batch) == COPIED:
            store.write(batch)
            batch.clear()
    store.write(batch)


def find_shards(
    reuse_from: Sequence[Path], stage: str, config: Mapping[str, Any], shard: ProblemShard, *, complete: bool,
    alone: bool = False,
) -> Merged:  # fmt: skip
    """Find the shards among folders, and check that they make up this run.

    Args:
        reuse_from: folders, or patterns of them with ``*``.
        stage: name of the stage.
        config: the configuration of this run, without a shard.
        shard: of this run, which merges nothing if it is a shard itself.
        complete: missing and unfinished shards are completed by this run.
        alone: folders that are no shards are refused.

    Raises:
        InputError: shards of another stage, configuration or number of shards; two of the same number; unless
            ``complete``, a missing or an unfinished one.
    """
    now = json.loads(json.dumps({**config, **trial.described()}, default=str))
    merged, unlike, unfinished = Merged(), list[Path](), list[str]()
    for folder in _expanded(reuse_from):
        manifest = read_manifest(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
        if manifest is None or manifest["stage"] != stage:
            raise InputError(f"reuse_from: {folder}: not the output of stage {stage}")
        if (text := manifest["config"].pop("shard", None)) is None:
            unlike.append(folder)
            continue
        own = ProblemShard.parse(str(text))
        if difference := first_difference(manifest["config"], now):
            raise InputError(f"reuse_from: {folder}: shard {own} was made with {difference}")
        if merged and merged.of != own.of:
            first = next(iter(merged.folders))
            raise InputError(
                f"reuse_from: {folder} is shard {own}, {merged.folders[first]} is {first}/{merged.of}: shards of two "
                "divisions hold the same problems; give those of one"
            )
        if own.number in merged.folders:
            raise InputError(
                f"reuse_from: {merged.folders[own.number]} and {folder} are both shard {own}, of the same problems"
            )
        merged = replace(merged, of=own.of)
        merged.folders[own.number] = folder
        merged.inputs.update((own.number, known["sha256"]) for known in manifest["inputs"].values())
        if not manifest["finished"]:
            unfinished.append(f"{folder} (shard {own})")
            continue
        merged.summaries[own.number] = manifest["summary"] or {}
        if list_shards(folder):  # a shard may be without a problem
            fingerprint(folder)  # refuses a folder that was changed
    _refuse(merged, unlike, unfinished, shard, stage if alone else None, complete=complete)
    return replace(merged, others=unlike, folders=dict(sorted(merged.folders.items())))


def _refuse(
    merged: Merged, others: list[Path], unfinished: list[str], shard: ProblemShard, stage: str | None, *, complete: bool
) -> None:  # fmt: skip
    if others and stage is not None:
        raise InputError(f"reuse_from: {others[0]}: not a shard of stage {stage} (made with `shard: i/n`)")
    if merged and shard.divides:
        raise InputError(f"reuse_from: shards are merged by a run of all problems; this is shard {shard}: leave it out")
    if complete and not merged:
        raise InputError("complete_shards: true: expected shards in reuse_from")
    if complete:
        return
    what = "or set complete_shards: true to make here what is missing"
    if unfinished:
        more = f" and {len(unfinished) - 1} more" if len(unfinished) > 1 else ""
        raise InputError(f"reuse_from: {unfinished[0]}{more} has not finished; run it again to its end, {what}")
    if merged and (missing := [f"{n}/{merged.of}" for n in range(1, merged.of + 1) if n not in merged.folders]):
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        raise InputError(f"reuse_from: missing shards: {', '.join(missing[:20])}{more}; give their folders too, {what}")


def _expanded(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield folders, those of a pattern in the order of their names."""
    for folder in folders:
        if "*" not in str(folder):
            yield folder
        elif found := sorted(glob(str(folder))):
            yield from map(Path, found)
        else:
            raise InputError(f"reuse_from: {folder}: no such folder")
