"""``sampling generate|label|score|select|rank|report|… --config stage.yaml``: one command a stage."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from stepverify.records import InputError

# stage → (module, what it does). Modules are imported only when their stage is called.
STAGES = {
    "generate": ("sampling.stages.generate", "problems → solutions, sampled by an engine"),
    "label": ("sampling.stages.label", "solutions → labelled: outcomes by grading, steps by rollouts"),
    "score": ("sampling.stages.score", "solutions → scored by exported verifiers"),
    "select": ("sampling.stages.select", "scored solutions → the most convincing incorrect ones, for people to rate"),
    "rank": ("sampling.stages.rank", "scored solutions → rankings: majority, best-of-N, weighted votes"),
    "report": ("sampling.stages.report", "rankings → curves with intervals: JSON, Markdown, PNG, HTML"),
    "grade": ("sampling.stages.grade", "pairs of reference and predicted answers → verdicts"),
    "compare": ("sampling.stages.compare", "step labels of several sources → how far they agree, and their costs"),
    "convert": ("sampling.stages.convert", "solutions of any reader → one file of records, or in another's format"),
}


def usage() -> str:
    """The help text of the program."""
    lines = [f"  {name:10}{text}" for name, (_, text) in STAGES.items()]
    return "\n".join(
        ["usage: sampling STAGE --config FILE.yaml [--key value ...]", "", "stages:", *lines, "",
         "sampling STAGE --help lists the keys of a stage."]
    )  # fmt: skip


def main(args: Sequence[str] | None = None) -> None:
    """Run one stage. Bad input ends with one line on stderr and exit code 2."""
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
