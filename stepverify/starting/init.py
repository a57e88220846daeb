"""Write a first configuration that trains a model on given rows.

``stepverify init prm --model M --data rows.jsonl``: looks at rows, tokenizer and machine, says what it found, and
writes a YAML that runs as it is.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stepverify import atomic
from stepverify.data.encode import LeftOut, SolutionEncoder, load_tokenizer
from stepverify.hub import local_model
from stepverify.readers.base import in_fold
from stepverify.records import InputError, Solution
from stepverify.starting.machine import Plan, look, plan, sizes_of
from stepverify.starting.next_commands import next_commands
from stepverify.starting.rows import READ, Need, Source, find_source, parse_columns, read_some
from stepverify.starting.text import Text, choose_text
from stepverify.template import load_export

_KINDS: dict[str, tuple[str, Need, str]] = {  # command → class, what it learns from, name in the heading
    "prm": ("ProcessRewardModel", "steps", "Process reward model"),
    "orm": ("OutcomeVerifier", "outcomes", "Outcome verifier"),
    "generator": ("GeneratorModule", "worked", "Generator"),
}
_FRACTIONS = (0.1, 0.2, 0.3, 0.5)  # of the problems, to validate on
_KEPT = 0.99  # share of the solutions that max_length must hold
_SHORT_RUN = 200  # steps, below which there are three epochs


@dataclass(frozen=True)
class _Found:
    """Hold all that a configuration is written from."""

    kind: str
    model: str
    source: Source
    fraction: float | None
    text: Text
    max_length: int
    length_note: str
    machine: Plan
    epochs: int
    soft: bool
    random: bool
    run: str
    output: Path


def init(
    kind: str, model: str, data: str, output: Path, *, split: str | None = None,
    name: str | None = None, columns: dict[str, str] | None = None, force: bool = False,
) -> list[str]:  # fmt: skip
    """Write the configuration; return what was found and what to run next, a line each.

    Args:
        kind: ``prm``, ``orm`` or ``generator``.
        model: local folder or hub id.
        data: rows, as readers take them.
        output: the file to write.
        split: split of a Hub data set.
        name: configuration of a Hub data set.
        columns: their column → our field.
        force: replace an existing file.

    Raises:
        InputError: rows, a model or a machine that cannot be used, or an existing file.
    """
    if output.exists() and not force:
        raise InputError(f"{output}: is there already; another name by --output, or --force replaces it")
    atomic.refuse_others(output, folder=False)
    need = _KINDS[kind][1]
    source = find_source(data, need, split=split, name=name, columns=columns)
    solutions = read_some(source, data, need)
    folder = local_model(model, weights=False)
    sizes = sizes_of(folder)
    exported = load_export(folder)
    tokenizer = load_tokenizer(folder)
    text = choose_text(tokenizer, solutions, exported[0] if exported else None, kind == "prm")
    soft = kind == "prm" and any(label and label.share is not None for s in solutions for label in s.step_labels or ())
    if kind == "prm" and source.reader == "Solutions" and any(s.step_labels is None for s in solutions):
        source = Source(source.reader, source.options | {"steps_labelled_only": True}, source.columns)
        solutions = [s for s in solutions if s.step_labels is not None]
    if kind == "generator" and source.reader == "Solutions" and any(s.correct is not None for s in solutions):
        source = Source(source.reader, source.options | {"correct_only": True}, source.columns)
        if not (solutions := [s for s in solutions if s.correct]):
            raise InputError(f"{data}: none of its solutions is correct, so there is nothing for a generator to learn")
    lengths = sorted(_lengths(SolutionEncoder(tokenizer, text.template, max_length=2**31), solutions, kind))
    max_length, note = _choose_length(lengths, sizes.context)
    used = [length for length in lengths if length <= max_length]
    machine = plan(model, sizes, max(used), sum(used), look())
    source, fraction, folds = _choose_folds(source, solutions)
    epochs = 1 if sum(used) / machine.pack_tokens >= _SHORT_RUN or len(solutions) >= READ else 3
    found = _Found(
        kind, model, source, fraction, text, max_length, note, machine, epochs, soft,
        _without_weights(Path(folder)), (Path("runs") / output.stem).as_posix(), output,
    )  # fmt: skip
    atomic.write(output, "\n".join(_lines(found)) + "\n")
    problems = len({s.problem_id for s in solutions})
    more = " (the first of them; more were not looked at)" if len(solutions) >= READ else ""
    return [
        f"rows: {source.describe()}: {len(solutions):,} solutions of {problems:,} problems{more}",
        *text.said, f"length: {note}", *machine.said, f"validation: {folds}", f"{output}: written", "next:",
        *(f"  {shlex.join(command)}" for command in _next(found)),
    ]  # fmt: skip


def _next(found: _Found) -> list[list[str]]:
    """Return the command lines that train the model, and use it."""
    fit = ["stepverify", "fit", "--config", str(found.output)]
    if found.kind == "generator":
        problems = ["--problems", str(found.source.options["path"])]
        sampled = ["--model", f"{found.run}/export", "--output", f"{found.run}/answers"]
        return [fit, ["sampling", "run", *problems, *sampled]]
    options = dict(found.source.options)
    options |= {} if found.fraction is None else {"fold": "validation", "validation_fraction": found.fraction}
    reader = {"class_path": found.source.reader, "init_args": options}
    return [fit, *next_commands(found.kind, f"{found.run}/export", found.run, reader)]


def _lengths(encoder: SolutionEncoder, solutions: Sequence[Solution], kind: str) -> list[int]:
    found = []
    for solution in solutions:
        try:
            example = encoder.process(solution, None) if kind == "prm" else encoder.outcome(solution, None)
        except LeftOut:
            continue
        found.append(len(example.input_ids))
    if not found:
        raise InputError("no solution has a step, so there is nothing to train on")
    return found


def _choose_length(lengths: Sequence[int], context: int | None) -> tuple[int, str]:
    """Return a length that holds nearly all solutions, and what it holds; ``lengths`` ascend."""
    typical = lengths[max(0, math.ceil(_KEPT * len(lengths)) - 1)]
    chosen = 64 * math.ceil(max(typical * 1.25, 64) / 64)
    if context is not None:
        chosen = min(chosen, context)
    held = sum(length <= chosen for length in lengths)
    if not held:
        raise InputError(f"the shortest solution has {lengths[0]:,} tokens, the model reads {chosen:,}: none fits")
    longest = f"{held:,} of {len(lengths):,} solutions fit into {chosen:,} tokens, the longest has {lengths[-1]:,}"
    return chosen, longest


def _choose_folds(source: Source, solutions: Sequence[Solution]) -> tuple[Source, float | None, str]:
    """Choose the share of problems to validate on; a reader without folds skips the first problems."""
    names = {s.problem_id for s in solutions}
    if source.has_folds:
        for fraction in _FRACTIONS:
            held = sum(in_fold(name, "validation", fraction) for name in names)
            if 0 < held < len(names):
                return source, fraction, f"{held:,} of {len(names):,} problems, by a hash of their ids"
        return source, None, f"none: {len(names):,} problems are too few to hold one out"
    held = len(names) // 10
    if not held:
        return source, None, f"none: {len(names):,} problems are too few to hold one out"
    return source, float(min(held, 200)), f"the first {min(held, 200):,} problems"


def _without_weights(folder: Path) -> bool:
    return folder.is_dir() and not any([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def _lines(found: _Found) -> list[str]:
    """Write the configuration, with a comment where something was chosen."""
    cls, _, title = _KINDS[found.kind]
    backbone: dict[str, Any] = {"path": found.model}
    backbone |= {"weights": "random"} if found.random else {}
    backbone |= {"lora": {"rank": 16, "alpha": 32}} if found.machine.lora else {}
    rate, decay = ("2.0e-4", "0.0") if found.machine.lora else ("1.0e-3" if found.random else "1.0e-5", "0.01")
    train, validation = _readers(found)
    length = found.max_length
    lines = [
        f"# {title} from {_flat(found.model)} on {_flat(str(found.source.options['path']))}, "
        "written by stepverify init.",
        f"#   {shlex.join(['stepverify', 'fit', '--config', str(found.output)])}",
        "model:",
        f"  class_path: {cls}",
        "  init_args:",
        f"    backbone: {_value(backbone)}" + (
            " # trained from scratch: the folder has no weights" if found.random
            else " # adapters, as training all parameters does not fit" if found.machine.lora else ""
        ),
    ]  # fmt: skip
    if found.text.written is not None:
        lines.append(f"    template: {_value(found.text.written)} # the tag is one token, in no solution")
    lines.append(f"    max_length: {length} # tokens; {found.length_note}")
    if found.soft:
        lines.append("    targets: { monte_carlo: soft } # labels are shares or probabilities")
    if found.kind == "orm":
        head = "linear" if found.machine.lora else "reserved"
        lines += ["    loss: bce", f"    head: {head}" + (" # adapters freeze the tag's row" * found.machine.lora)]
    lines += [
        "    optimizer:",
        "      class_path: AdamW",
        f"      init_args: {{ lr: {rate}, weight_decay: {decay} }}",
        "data:",
        "  train:",
        f"    class_path: {found.source.reader}",
        f"    init_args: {_value(train)}",
    ]
    if validation is not None:
        lines += [
            "  validation: # other problems than those of train",
            f"    class_path: {found.source.reader}",
            f"    init_args: {_value(validation)}",
        ]
    return [
        *lines,
        f"  pack_tokens: {found.machine.pack_tokens} # of a batch: {found.machine.why}",
        "trainer:",
        f"  default_root_dir: {_value(found.run)}",
        f"  max_epochs: {found.epochs}",
        f"  precision: {found.machine.precision}",
    ]


def _readers(found: _Found) -> tuple[dict[str, Any], dict[str, Any] | None]:
    options = found.source.options
    if found.fraction is None:
        return options, None
    if found.source.has_folds:
        share = {} if found.fraction == _FRACTIONS[0] else {"validation_fraction": found.fraction}
        return options | {"fold": "train"} | share, options | {"fold": "validation"} | share
    return options | {"start": int(found.fraction)}, options | {"limit": int(found.fraction)}


def _flat(text: str) -> str:
    return " ".join(text.split())


def _value(value: Any) -> str:
    """Write a value in YAML's flow style; texts as JSON, which YAML reads."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)}: {_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _key(key: Any) -> str:
    return str(key) if str(key).isidentifier() else json.dumps(str(key), ensure_ascii=False)


def main(args: Sequence[str]) -> None:
    """Run ``stepverify init``; ``args`` follow the command."""
    parser = argparse.ArgumentParser(
        "stepverify init", allow_abbrev=False,
        description="Look at rows, model and machine, and write a YAML that trains a verifier or generator.",
    )  # fmt: skip
    parser.add_argument("kind", choices=[*_KINDS], help="what is trained")
    parser.add_argument("--model", required=True, help="folder or hub id of the model to start from")
    parser.add_argument("--data", required=True, help="rows: file, folder of a stage, or id of a hub data set")
    parser.add_argument("--output", type=Path, help="file to write; default: my_KIND.yaml")
    parser.add_argument("--split", help="split of a hub data set")
    parser.add_argument("--name", help="configuration of a hub data set, if it has several")
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="COLUMN=FIELD",
        help="names of your columns: question=problem parts=steps marks=step_labels",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    given = parser.parse_args(args)
    output = cast(Path, given.output or Path(f"my_{given.kind}.yaml"))
    columns = parse_columns(given.columns)
    said = init(
        given.kind, given.model, given.data, output, split=given.split, name=given.name, columns=columns or None,
        force=given.force,
    )  # fmt: skip
    print("\n".join(said))
