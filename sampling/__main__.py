"""Run one stage: ``sampling STAGE --config FILE.yaml``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from stepverify.records import InputError

# stage → (module, description). A module is imported only when its stage runs.
STAGES = {
    "generate": ("sampling.stages.generate", "sample solutions of problems"),
    "label": ("sampling.stages.label", "label solutions: outcomes by grading answers, steps by rollouts"),
    "score": ("sampling.stages.score", "score solutions with exported verifiers"),
    "select": ("sampling.stages.select", "select convincing incorrect solutions for people to rate"),
    "rank": ("sampling.stages.rank", "rank scored solutions by majority vote, best-of-N and weighted vote"),
    "report": ("sampling.stages.report", "report accuracies and verifier quality as JSON, Markdown, PNG and HTML"),
    "grade": ("sampling.stages.grade", "grade predicted answers against reference answers"),
    "compare": ("sampling.stages.compare", "compare step labels of several sources, and their costs"),
    "convert": ("sampling.stages.convert", "convert solutions of any reader to one file, also for other libraries"),
}


def usage() -> str:
    """Return the help text of the program."""
    lines = [f"  {name:10}{text}" for name, (_, text) in STAGES.items()]
    return "\n".join(
        ["usage: sampling STAGE --config FILE.yaml [--key value ...]", "", "stages:", *lines, "",
         "sampling STAGE --help lists the keys of a stage."]
    )  # fmt: skip


def main(args: Sequence[str] | None = None) -> None:
    """Run one stage from the command line.

    Bad input ends with one line on stderr and exit code 2.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if args else 2)
    stage, *rest = args
    if stage not in STAGES:
        print(f"sampling: unknown stage {stage!r}\n\n{usage()}", file=sys.stderr)
        sys.exit(2)
    from jsonargparse import ArgumentParser

    run = getattr(importlib.import_module(STAGES[stage][0]), stage)
    parser = ArgumentParser(prog=f"sampling {stage}", description=STAGES[stage][1])
    parser.add_argument("--config", action="config", help="YAML file with the keys below; may be repeated")
    parser.add_function_arguments(run)
    parsed = parser.parse_args(rest)
    try:
        values = parser.instantiate(parsed)
        run(**{key: value for key, value in values.items() if key != "config"})
    except ValueError as error:
        if (bad := InputError.within(error)) is None:
            raise
        print(f"sampling {stage}: {bad}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
