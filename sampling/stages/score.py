"""Solutions → scored solutions, by verifiers that ``stepverify fit`` exported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from sampling.runtime.device import choose_device
from sampling.runtime.progress import Progress
from sampling.runtime.store import Store
from stepverify.jsonl import fingerprint, read_records
from stepverify.layout import EXPORT_FILE
from stepverify.readers.released import digest
from stepverify.records import InputError, Solution
from stepverify.training_problems import count_trained, describe_trained

Neutral = Literal["positive", "negative"]
_CHUNK = 128  # solutions that are packed, scored and written together: what a killed run loses, and sees at a time


class Scorer(Protocol):
    """Gives values along solutions."""

    def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Values in [0, 1] along each solution; none at all for one that is too long to be read whole."""
        ...

    def pieces(self, solution: Solution) -> list[str]:
        """The text of the token behind each of its values; none where they are not values of tokens."""
        ...


class ExportedVerifier:
    """An exported outcome verifier or process reward model, scored by the code that trained it.

    Args:
        path: the export.
        dtype: number format of the parameters; ``auto`` is that of the training.
        device: None takes a GPU where there is one.
        pack_tokens: tokens read at the same time, what solutions of a problem share counted once.
        every_token: give an outcome verifier's value at every solution token instead of the last one.
        neutral: what P(neutral) counts as in the values of a process reward model with a neutral label; None takes
            what the export says.
    """

    def __init__(
        self,
        path: str,
        dtype: str = "auto",
        device: str | None = None,
        pack_tokens: int = 8192,
        every_token: bool = False,
        neutral: Neutral | None = None,
    ) -> None:
        self.path, self.dtype, self.device = path, dtype, device
        self.pack_tokens, self.every_token, self.neutral = pack_tokens, every_token, neutral

    @cached_property
    def _loaded(self) -> Any:
        from stepverify.models import load_verifier

        device = choose_device(self.device)
        model, encoder, facts = load_verifier(self.path, self.dtype, self.neutral)
        return model.to(device), encoder, facts["objective"], device

    def score(self, solutions: Sequence[Solution]) -> list[list[float]]:
        """Values along each solution, in the order given."""
        import torch

        from stepverify.data.batch import collate
        from stepverify.data.encode import LeftOut
        from stepverify.data.packing import to_score

        model, encoder, objective, device = self._loaded
        examples = {}
        for i, solution in enumerate(solutions):
            try:
                examples[i] = (
                    encoder.process(solution, None)
                    if objective == "process"
                    else encoder.outcome(solution, None, last_only=not self.every_token)
                )
            except LeftOut:
                continue
        values: list[list[float]] = [[] for _ in solutions]
        if not examples:
            return values
        numbers, sequences = list(examples), [e.input_ids for e in examples.values()]
        groups = [solutions[i].problem_id for i in numbers]
        packs = model.packs(max(map(len, sequences)))
        for pack in to_score(sequences, groups, self.pack_tokens, packs):
            rows = [numbers[i] for i in pack]
            batch = collate([examples[i] for i in rows], shared=packs).to(device)
            with torch.inference_mode():
                scored = batch.split(model.score(batch))
            for i, along in zip(rows, scored, strict=True):
                values[i] = [round(v, 6) for v in along]
        return values

    def pieces(self, solution: Solution) -> list[str]:
        """Texts of all solution tokens, where an outcome verifier is read at every one."""
        _, encoder, objective, _ = self._loaded
        return encoder.pieces(solution) if self.every_token and objective != "process" else []


def score(
    input: Path,
    output: Path,
    verifiers: dict[str, str],
    pack_tokens: int = 8192,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    every_token: bool = False,
    neutral: dict[str, Neutral] | None = None,
) -> None:
    """Score solutions with one verifier or several.

    Args:
        input: folder of solutions.
        output: folder for the scored solutions; a killed run goes on where it was.
        verifiers: name in the scores → folder of the export; ``orm`` and ``prm`` for example.
        pack_tokens: tokens read at the same time, what solutions of a problem share counted once.
        dtype: number format of the parameters; ``auto`` is that of the training.
        every_token: outcome verifiers give the value at every solution token instead of the last one.
        neutral: verifier → what P(neutral) counts as in the values of one with a neutral label; left out, what its
            export says. One export under two names gives both.
    """
    if not verifiers:
        raise InputError("verifiers: expected at least one name and export folder")
    if unknown := (neutral := neutral or {}).keys() - verifiers.keys():
        raise InputError(f"neutral.{min(unknown)}: no such verifier; expected one of {[*verifiers]}")
    exports = {name: _identity(path) for name, path in verifiers.items()}
    config: dict[str, Any] = {"verifiers": exports, "dtype": dtype, "every_token": every_token}
    config |= {"neutral": neutral} if neutral else {}  # folders made before it could be asked for are found
    with Store(output, Solution, stage="score", config=config, inputs={"input": input}) as store:
        if store.finished:
            print(f"{output}: already finished, {len(store.done)} solutions")
            return
        scorers: dict[str, Scorer] = {
            n: ExportedVerifier(p, dtype, None, pack_tokens, every_token, neutral.get(n)) for n, p in verifiers.items()
        }
        total, problems, digests = 0, set[str](), dict[str, str]()
        for solution in read_records(input, Solution):
            if solution.problem_id not in problems:
                digests.setdefault(digest(solution.problem), solution.problem_id)
            problems.add(solution.problem_id)
            total += 1
        trained = {name: count_trained(path, digests) for name, path in verifiers.items()}
        for line in describe_trained(trained):
            print(f"WARNING: {line}", flush=True)
        for name in (name for name, found in trained.items() if found is None):
            print(f"{name}: {verifiers[name]} does not say which problems it was trained on", flush=True)
        # What an earlier, killed run has written counts too.
        written = (
            s for shard in store.folder.glob("part-*.jsonl") if store.done for s in read_records(shard, Solution)
        )
        too_long = dict.fromkeys(verifiers, 0)
        for solution in written:
            for name in verifiers:
                too_long[name] += not solution.scores[name]
        with Progress("score", "solutions", total, len(store.done)) as progress:
            missing = (s for s in read_records(input, Solution) if s.id not in store.done)
            while chunk := list(islice(missing, _CHUNK)):
                for name, scorer in scorers.items():
                    try:
                        scored = scorer.score(chunk)
                    except Exception as error:
                        if (said := _out_of_memory(error, name, pack_tokens, dtype)) is None:
                            raise
                        raise said from error
                    for solution, values in zip(chunk, scored, strict=True):
                        solution.scores = solution.scores | {name: values}
                        if values and (texts := scorer.pieces(solution)):
                            solution.pieces = solution.pieces | {name: texts}
                        too_long[name] += not values
                store.write(chunk)
                progress.add(len(chunk))
        summary = {"solutions": total, "without_scores": too_long, "trained_on": trained}
        store.finish(summary | progress.summary())
    print(f"{output}: {total} solutions scored by {', '.join(verifiers)}")
    for name, count in too_long.items():
        if count:
            print(f"  {name}: {count} solutions without a step or too long to be read: no score, they rank last")


def _out_of_memory(error: Exception, verifier: str, pack_tokens: int, dtype: str) -> InputError | None:
    """Describe what to lower where an error says that memory ran out; None of others."""
    import torch

    from stepverify.memory import describe_use, is_out_of_memory

    if not is_out_of_memory(error):
        return None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return InputError(
        f"{verifier}: out of memory on {describe_use(device)}; lower pack_tokens ({pack_tokens} now), "
        f"then set dtype: bfloat16 ({dtype} now); solutions scored so far are kept, and the same command goes on"
    )


def _identity(path: str) -> str:
    """An export is what its files are: the same folder after another training is another verifier."""
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{path}: not an exported verifier (no .safetensors file)")
    # Layout, ids and tokenizer decide what is read, as much as the weights do.
    others = [file for name in (EXPORT_FILE, "tokenizer.json") if (file := folder / name).is_file()]
    return " ".join(fingerprint(file)[:16] for file in (*weights, *others))
