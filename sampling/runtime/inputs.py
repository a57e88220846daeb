"""Read the inputs of stages: problems and exported templates."""

from __future__ import annotations

from stepverify.readers import Reader
from stepverify.records import InputError, Problem
from stepverify.template import Template, load_export


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


def exported_template(model: str) -> Template:
    """Return the template of an exported model, or the default template."""
    export = load_export(model)
    return export[0] if export else Template()
