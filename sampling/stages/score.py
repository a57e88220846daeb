"""Score solutions with one or several verifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from sampling.runtime.store import Store
from sampling.scorers import ExportedVerifier, Scorer
from sampling.scorers.path import ExportPath
from sampling.scorers.run import remove_parts, score_all
from sampling.scorers.trained import say_trained
from stepverify.jsonl import read_records
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
) -> None:
    """Score solutions with one or several verifiers.

    Args:
        input: folder of solutions.
        output: folder for the scored solutions; a killed run continues where it stopped.
        verifiers: name in the scores, for example ``orm`` or ``prm`` → folder of an export or id of a hub repository,
            or ``class_path`` and ``init_args`` of a scorer (ExportedVerifier, PoolingVerifier). Verifiers are loaded
            one after the other, and each scores all solutions.
        pack_tokens: tokens per forward pass, with the shared prefix of a problem's solutions counted once. This and the
            keys below apply to verifiers that are given as a folder or id.
        dtype: number format of the parameters; ``auto`` is that of the training.
        per_token: keep an outcome verifier's value at every solution token instead of the final one.
        devices: number of devices; ``auto`` uses every GPU, or one process without a GPU.

    Raises:
        InputError: no verifier, one that cannot be loaded, or a key that applies to none of the given verifiers.
    """
    if not verifiers:
        raise InputError("verifiers: expected at least one name and export folder")
    for name in verifiers:
        if not name.strip() or not name.isprintable() or name in (".", "..") or len(name) > _LONGEST_NAME:
            raise InputError(f"verifiers: {name!r:.80}: expected up to {_LONGEST_NAME} printable characters")
    options: dict[str, Any] = dict(pack_tokens=pack_tokens, dtype=dtype, per_token=per_token, devices=devices)
    if all(isinstance(given, Scorer) for given in verifiers.values()) and options != _DEFAULTS:
        key = next(key for key, value in options.items() if value != _DEFAULTS[key])
        raise InputError(f"{key}: {options[key]}: no verifier is given as a folder; set it in init_args of the scorer")
    scorers = {n: v if isinstance(v, Scorer) else ExportedVerifier(v, **options) for n, v in verifiers.items()}
    config = {"verifiers": {name: scorer.identity() for name, scorer in scorers.items()}}
    with Store(output, Solution, stage="score", config=config, inputs={"input": input}) as store:
        if store.finished:
            remove_parts(store)
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        total, problems = _survey(input)
        trained = say_trained(scorers, problems)
        summary = score_all(input, store, scorers, total)
        store.finish({"solutions": total, "trained_on": trained} | summary)
        remove_parts(store)
    print(f"{output}: {total} solutions scored by {', '.join(verifiers)}")
    for name, count in summary["without_scores"].items():
        if count:
            print(f"  {name}: {count} solutions without a score (no step, or too long to be read); they rank last")


def _survey(input: Path) -> tuple[int, dict[str, str]]:
    """Count the solutions, and map digests of problem texts to problem ids."""
    total, problems, digests = 0, set[str](), dict[str, str]()
    for solution in read_records(input, Solution):
        if solution.problem_id not in problems:
            digests.setdefault(digest(solution.problem), solution.problem_id)
        problems.add(solution.problem_id)
        total += 1
    return total, digests
