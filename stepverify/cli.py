"""Run ``stepverify fit|validate|test|predict --config …``, a LightningCLI; ``stepverify init`` and ``adopt``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from stepverify.errors import InputError
from stepverify.faults import check_arguments, reported
from stepverify.suggest import check_words, meant

_COMMANDS = ("fit", "validate", "test", "predict", "adopt", "init")
_USAGE = """usage: stepverify COMMAND --config FILE.yaml [--config OVERLAY.yaml] [--set NAME=VALUE] [--key value] ...

commands:
  init       look at your rows, model and machine, and write a first YAML: init prm --model M --data rows.jsonl
  fit        train a generator, an outcome verifier or a process reward model
  validate   compute loss and metrics on the validation data
  test       compute loss and metrics on the test data
  predict    score solutions and write them as records
  adopt      put a calibration of `sampling calibrate` into an export: --export DIR --calibration FILE, or --remove

A run writes everything below trainer.default_root_dir: logs/ for TensorBoard, checkpoints/, and export/,
a Hugging Face directory. To fit again in a folder that holds a run:
  --ckpt_path last   resume it (start one if there is none; a finished run is left unchanged)
  --overwrite true   remove its logs, checkpoints and export, and start over
--set changes a variable of the recipe's vars.yaml: stepverify fit --config FILE.yaml --set model=DIR
stepverify COMMAND --help lists all keys of a command.
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Bad input ends with one line on stderr and exit code 2.

    Args:
        args: command line; None takes the arguments of the process.
    """
    words = list(sys.argv[1:] if args is None else args)
    # Answered without importing lightning, which takes seconds.
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, end="")
        sys.exit(0 if words else 2)
    with reported(f"stepverify {words[0]}"):
        check_arguments(words)
        if words[0] == "init":
            from stepverify.starting.init import main as init

            init(words[1:])
            return
        _check(words)
        if words[0] == "adopt":
            from stepverify.adoption import main as adopt

            adopt(words[1:])
            return
        from stepverify.trainer import run

        run(args)


def _check(words: Sequence[str]) -> None:
    """Refuse an unknown command, and a word alone, before lightning is imported."""
    if words[0].startswith("-"):
        return
    if words[0] not in _COMMANDS:
        raise InputError(f"no such command; {meant(words[0], _COMMANDS)}")
    check_words(f"stepverify {words[0]}", words[1:])


if __name__ == "__main__":
    main()
