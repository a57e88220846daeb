"""Run one stage: ``sampling STAGE --config FILE.yaml``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from stepverify.faults import check_arguments, reported
from stepverify.suggest import meant

# stage → (module, description). A module is imported only when its stage runs.
STAGES = {
    "generate": ("sampling.stages.generate", "sample solutions of problems"),
    "label": ("sampling.stages.label", "label solutions: outcomes by grading answers, steps by rollouts"),
    "score": ("sampling.stages.score", "score solutions with exported verifiers"),
    "search": ("sampling.stages.search", "search solutions guided by a verifier: beam search, MCTS and others"),
    "policy": ("sampling.stages.policy", "choose the best search for each budget and difficulty, for search --policy"),
    "calibrate": ("sampling.stages.calibrate", "fit maps from verifiers' values to probabilities, on scored problems"),
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
        ["usage: sampling STAGE --config FILE.yaml [--set NAME=VALUE ...] [--key value ...]",
         "       sampling run --problems FILE --model MODEL [--verifier EXPORT] [--output DIR]",
         "       sampling pipeline FOLDER [--set NAME=VALUE ...] [--overlay FILE.yaml ...]", "", "stages:", *lines, "",
         "sampling STAGE --help lists the keys of a stage; --dry-run says what generate, label, score or",
         "search would compute, and writes nothing. sampling run answers questions in one command;",
         "sampling pipeline runs the stages of a recipe in order, --set changes a variable of its vars.yaml."]
    )  # fmt: skip


def main(args: Sequence[str] | None = None) -> None:
    """Run one stage, or a pipeline of them, from the command line.

    Bad input ends with one line on stderr and exit code 2.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if args else 2)
    stage, *rest = args
    if stage not in ("pipeline", "run", *STAGES):
        print(f"sampling: {stage}: no such stage; {meant(stage, [*STAGES, 'pipeline', 'run'])}", file=sys.stderr)
        sys.exit(2)
    with reported(f"sampling {stage}"):
        check_arguments(args)
        if stage == "pipeline":
            from sampling.pipeline import main as pipeline

            sys.exit(pipeline(rest))
        if stage == "run":
            from sampling.questions import main as answer

            sys.exit(answer(rest))
        _run(stage, rest)


@cache
def _parser_class() -> Any:
    """Return the one class of all parsers: by it jsonargparse keeps what it has found out of the classes of a file."""
    from jsonargparse import ArgumentParser

    from stepverify.config_files import ConfigFiles

    class Parser(ConfigFiles, ArgumentParser):
        pass

    return Parser


def _run(stage: str, args: list[str]) -> None:
    from stepverify.config_files import hints_of
    from stepverify.trial import limited
    from stepverify.variables import Variables, split_arguments

    module, description = STAGES[stage]
    run = getattr(importlib.import_module(module), stage)
    given, rest = split_arguments([word for word in args if word != "--dry-run"])
    parser = _parser_class()(
        prog=f"sampling {stage}", description=f"{description}. --set NAME=VALUE: a variable of vars.yaml"
    )
    parser.variables, parser.hints = Variables(given), hints_of(run) | {"limit": int | None}
    parser.add_argument("--config", action="config", help="YAML file with the keys below; may be repeated")
    parser.add_argument(
        "--limit", type=int | None, default=None, help="only the first N problems, for a trial; the manifest says so"
    )
    parser.add_function_arguments(run)
    parsed = parser.parse_args(rest)
    parser.variables.check()
    values = parser.instantiate(parsed)
    with limited(values.limit, {k: v for k, v in values.items() if k not in ("config", "limit")}) as chosen:
        if values.limit is not None:
            print(f"trial: at most {values.limit:,} problems are read of each input (--limit {values.limit})")
        if "--dry-run" in args:
            from sampling.runtime.dry_run import dry_run

            dry_run(stage, run, chosen)
            return
        run(**chosen)


if __name__ == "__main__":
    main()
