"""Score solutions with one or several verifiers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from sampling.runtime.merging import Merged, copy, find_shards
from sampling.runtime.problem_shard import ProblemShard
from sampling.runtime.store import Store
from sampling.scorers import ExportedVerifier, Scorer
from sampling.scorers.calibrated import calibrated
from sampling.scorers.path import ExportPath
from sampling.scorers.run import Work, remove_parts, score_all
from sampling.scorers.trained import say_trained
from stepverify.jsonl import dump_line, read_records
from stepverify.keys import KeySet
from stepverify.readers.released import digest
from stepverify.records import InputError, Solution

_LONGEST_NAME = 60  # it also names a folder, with up to four bytes a character in three signs each
_DEFAULTS = {"pack_tokens": 8192, "dtype": "auto", "per_token": False, "devices": "auto"}


def score(
    input: Path,
    output: Path,
    verifiers: dict[str, Scorer | ExportPath],
    pack_tokens: int = 8192,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    per_token: bool = False,
    devices: int | Literal["auto"] = "auto",
    shard: str | None = None,
    reuse_from: Sequence[Path] = (),
    complete_shards: bool = False,
    calibration: Path | None = None,
) -> None:
    """Score solutions with one or several verifiers.

    Args:
        input: folder of solutions.
        output: folder for the scored solutions; a killed run continues where it stopped.
        verifiers: name in the scores, for example ``orm`` or ``prm`` → folder of an export or id of a hub repository,
            or ``class_path`` and ``init_args`` of a scorer (ExportedVerifier, PoolingVerifier, GenerativeScorer).
            Verifiers are loaded one after the other, and each scores all solutions.
        pack_tokens: tokens per forward pass, with the shared prefix of a problem's solutions counted once. This and the
            keys below apply to verifiers that are given as a folder or id.
        dtype: number format of the parameters; ``auto`` is that of the training.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.
        shard: ``i/n``: score the problems of job i of n alone, by a hash of their ids; each job has its own output.
            Values are those of one run up to rounding, as other solutions are read beside them.
        reuse_from: all shards of this run, by name or as ``folder/*``. This run then writes what it would have written
            without shards.
        complete_shards: score here what missing and unfinished shards in ``reuse_from`` lack, in place of refusing.
        calibration: file of ``sampling calibrate``; every value is then written as its map gives it. A map of the
            product or the mean of values needs them all, and is for ``sampling rank`` alone.

    Raises:
        InputError: no verifier, one that cannot be loaded, a key that applies to none of the given verifiers, or
            shards that are missing, unfinished or of another run.
    """
    part = ProblemShard.parse(shard)
    if not verifiers:
        raise InputError("verifiers: expected at least one name and export folder")
    for name in verifiers:
        if not name.strip() or not name.isprintable() or name in (".", "..") or len(name) > _LONGEST_NAME:
            raise InputError(f"verifiers: {name!r:.80}: expected up to {_LONGEST_NAME} printable characters")
    options: dict[str, Any] = dict(pack_tokens=pack_tokens, dtype=dtype, per_token=per_token, devices=devices)
    if all(isinstance(given, Scorer) for given in verifiers.values()) and options != _DEFAULTS:
        key = next(key for key, value in options.items() if value != _DEFAULTS[key])
        raise InputError(f"{key}: {options[key]}: no verifier is given as a folder; set it in init_args of the scorer")
    plain = {n: v if isinstance(v, Scorer) else ExportedVerifier(v, **options) for n, v in verifiers.items()}
    scorers = calibrated(plain, calibration, (solution.problem_id for solution in read_records(input, Solution)))
    config: dict[str, Any] = {"verifiers": {name: scorer.identity() for name, scorer in scorers.items()}}
    described: dict[str, Any] = {"stage": "score", "config": config | part.config(), "inputs": {"input": input}}
    with Store(output, Solution, **described, may_be_empty=part.divides) as store:
        if store.finished:
            remove_parts(store)
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        merged = find_shards(reuse_from, "score", config, part, complete=complete_shards, alone=True)
        merged.check_contents(input, lambda solution: _unscored(solution, scorers))
        total, left, problems = _survey(input, part, merged, texts=any(scorer.export for scorer in scorers.values()))
        trained = say_trained(scorers, problems)
        copy(merged.in_order(read_records(input, Solution)) if merged else (), store)
        work = Work(input, lambda problem_id: problem_id in part and not merged.holds(problem_id), left)
        summary = score_all(work, store, scorers, held=total - left)
        store.finish({"solutions": total, "trained_on": trained} | merged.add(summary))
        remove_parts(store)
    print(f"{output}: {total} solutions scored by {', '.join(verifiers)}")
    merged.say(output, summary["items_this_run"], "solutions")
    written = summary.get("critiques", {})
    for name, count in summary["without_scores"].items():
        if count:
            reasons = f"no step, or too long to be read{', or no verdict' * (name in written)}"
            print(f"  {name}: {count} solutions without a score ({reasons}); they rank last")
    for name, counts in written.items():
        print(
            f"  {name}: {counts['critiques']:,} critiques; {counts['without_verdict']:,} have no verdict, and count "
            f"nowhere; the verdict of {counts['forced_verdicts']:,} was forced"
        )


def _survey(input: Path, part: ProblemShard, merged: Merged, *, texts: bool) -> tuple[int, int, dict[str, str]]:
    """Count the solutions, and those not in finished shards; map digests of problem ``texts`` to problem ids."""
    total, left, problems, digests = 0, 0, KeySet(), dict[str, str]()
    for solution in read_records(input, Solution):
        if solution.problem_id in part:
            total += 1
            left += not merged.holds(solution.problem_id)
            if texts and problems.add(solution.problem_id):
                digests.setdefault(digest(solution.problem), solution.problem_id)
    return total, left, digests


def _unscored(solution: Solution, names: Collection[str]) -> str:
    """Describe a solution without the scores of verifiers."""
    scores = {name: values for name, values in solution.scores.items() if name not in names}
    texts = {name: values for name, values in solution.token_texts.items() if name not in names}
    critiques = {name: written for name, written in solution.critiques.items() if name not in names}
    return dump_line(replace(solution, scores=scores, token_texts=texts, critiques=critiques))
