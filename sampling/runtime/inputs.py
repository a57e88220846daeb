"""Read the inputs of stages: problems and exported templates."""

from __future__ import annotations

from collections.abc import Sequence

from stepverify.hub import is_hub_id, lacks_export_file, local_model
from stepverify.readers import Reader
from stepverify.records import InputError, Problem
from stepverify.template import EXPORT_FILE, Template, load_export


def read_problems(reader: Reader) -> list[Problem]:
    """Read all problems of a reader.

    Raises:
        InputError: no problem, or a duplicate id.
    """
    problems, seen = [], set()
    for problem in reader.problems():
        if problem.id in seen:
            raise InputError(f"{reader.described}: problem id {problem.id!r} occurs twice")
        seen.add(problem.id)
        problems.append(problem)
    if not problems:
        raise InputError(f"{reader.described}: no problem was read; check its file and its start, limit and fold")
    return problems


def read_examples(reader: Reader | None, problems: Sequence[Problem]) -> list[Problem]:
    """Read the few-shot examples; none without a reader.

    Raises:
        InputError: an example that is also one of the problems.
    """
    examples = list(reader.problems()) if reader else []
    if shared := {e.id for e in examples} & {p.id for p in problems}:
        raise InputError(f"few_shot: example {min(shared)} is also one of the problems")
    return examples


def exported_template(model: str) -> Template:
    """Return the template of an exported model, or the default template.

    Raises:
        InputError: no such repository of the Hub that can be read from here.
    """
    if export := load_export(local_model(model, weights=False)):
        return export[0]
    if is_hub_id(model) and not lacks_export_file(model):
        print(
            f"WARNING: {model}: the Hub's cache has no {EXPORT_FILE} of it, and does not say whether there is one "
            "(HF_HUB_OFFLINE is set): the default template is used; give `template`, or download it once",
            flush=True,
        )
    return Template()
