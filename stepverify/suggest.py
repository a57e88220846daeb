"""Propose what a mistyped name may have meant. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from stepverify.errors import InputError

_CLEAR = 0.1  # difference of similarity by which a name is proposed alone
_CLOSE = 0.65  # least similarity, which two exchanged letters of three have
_FEW = 12  # names that a message lists; more would hide its beginning


def close_to(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three known names that a name may have meant, the closest first, whatever their capitals."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=_CLOSE)
    near = {one: difflib.SequenceMatcher(None, one, name.lower()).ratio() for one in found}
    return [by_lower[one] for one in found if near[one] > near[found[0]] - _CLEAR]


def meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Write ``did you mean …?``, or the names that are possible; each after ``prefix``."""
    known = sorted(known)
    if close := close_to(name, known):
        return f"did you mean {either([prefix + one for one in close])}?"
    shown = [prefix + one for one in known[:_FEW]]
    if not shown:
        return "expected none"
    more = f" and {len(known) - _FEW} more" if len(known) > _FEW else ""
    return f"expected one of {', '.join(shown)}{more}" if more else f"expected {either(shown)}"


def either(names: Sequence[str]) -> str:
    """Join names: ``a``, ``a or b``, ``a, b or c``."""
    return " or ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def shown(value: object) -> str:
    """Write a value for a message, cut after 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def check_words(program: str, words: Sequence[str], flags: Iterable[str] = ("--help", "-h", "--print_config")) -> None:
    """Check that every word of a command line is an option or the value of one.

    Args:
        program: program and command, for the proposal.
        words: of the command line, after the command.
        flags: options without a value.

    Raises:
        InputError: a word alone; a YAML file most likely lacks ``--config``, and an export the name of a verifier.
    """
    previous = ""
    for word in words:
        is_option = word.startswith("-") and not word.lstrip("-")[:1].isdigit() and word != "-"
        takes = previous.startswith("-") and "=" not in previous and previous.partition("=")[0] not in flags
        if not is_option and not takes:
            raise InputError(f"{word}: {_proposal(program, word)}")
        if is_option and not takes and not word.startswith("--") and len(word) > 2:
            raise InputError(f"{word}: no such option; did you mean -{word}?")
        previous = word if is_option else ""


def _proposal(program: str, word: str) -> str:
    if word.endswith((".yaml", ".yml")):
        return f"--config is missing: {program} --config {word}"
    if program == "sampling score" and Path(word).is_dir():
        export = Path(word) / "export" if (Path(word) / "export").is_dir() else Path(word)
        if (export / "config.json").is_file():
            return f"expected an option before it; a verifier is given as --verifiers '{{prm: {export}}}'"
    return f"expected an option before it; {program} --help lists them"


class OneLineParser(argparse.ArgumentParser):
    """Parse a command line, and report mistakes in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise the message.

        Raises:
            InputError: always; an unknown option with the close ones.
        """
        label, _, words = message.partition(": ")
        word = words.split()[0] if label == "unrecognized arguments" else ""
        if word.startswith("--"):
            known = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
            name = word.partition("=")[0]
            raise InputError(f"{name}: no such option; {meant(name.removeprefix('--'), known, '--')}")
        raise InputError(f"{message}; {self.prog} --help lists all options")


def no_such(path: str | Path, kind: str = "file or folder") -> str:
    """Say that there is no such path, and where a relative one was looked for."""
    return f"{path}: no such {kind}{looked_in(path)}"


def looked_in(path: str | Path) -> str:
    """Say where a relative path was looked for; nothing of an absolute one."""
    return "" if Path(path).is_absolute() else f" (relative to the working directory: {Path.cwd() / path})"


def look_like(path: Path) -> str:
    """Say what a folder without records seems to be, for the end of a message."""
    if found := look_like_run(path):
        return found
    if (path / "config.json").is_file():
        return "; it is a model or an exported verifier"
    if (path / "summary.json").is_file():
        return "; it is a report"
    return ""


def look_like_run(path: Path) -> str:
    """Say where the model is, of a folder that seems to be a run of ``stepverify fit``; nothing of others."""
    return f"; it is a run of `stepverify fit`, whose model is {path / 'export'}" if (path / "export").is_dir() else ""
