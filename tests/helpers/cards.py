"""The code on a model card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


def blocks(card: Path) -> list[str]:
    """Snippets of Python on a card."""
    return re.findall(r"^```python\n(.*?)^```$", card.read_text(), re.MULTILINE | re.DOTALL)


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the first snippet of a folder's card, in the folder, as it stands there."""
    names: dict[str, Any] = {}
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        exec(compile(blocks(folder / "README.md")[0], "README.md", "exec"), names)
    return names
