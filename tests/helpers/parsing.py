"""Command lines of the two programs, parsed without running them."""

from __future__ import annotations

import pytest

PARSED: dict[tuple[str, ...], str] = {}


def parse(command: list[str], capsys: pytest.CaptureFixture) -> str:
    """Parse and type-check a command line without running it; gives back the full configuration.

    Tests compare variants of recipes: each command is parsed once.
    """
    if (known := PARSED.get((*command,))) is not None:
        return known
    from sampling.__main__ import main as sampling
    from stepverify.cli import main as stepverify

    program, *args = command
    with pytest.raises(SystemExit) as stopped:
        {"sampling": sampling, "stepverify": stepverify}[program]([*args, "--print_config"])
    output = capsys.readouterr()
    assert stopped.value.code == 0, output.err
    return PARSED.setdefault((*command,), output.out)
