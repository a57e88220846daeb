"""What the grader's workers do with a text, but some texts take for ever, and some wait. Workers import it by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from stepverify.answers import worker

ENDLESS = "this takes for ever: "
WAITING = "this waits for: "

_settle, _equivalent, _key, _extract = worker.settle, worker.equivalent, worker.key, worker.extract


def settle(pair: tuple[str, str]) -> bool | None:
    _hold(*pair)
    return _settle(pair)


def key(answer: str) -> str | None:
    _hold(answer)
    return _key(answer)


def extract(text: str, fallback: Any) -> str | None:
    _hold(text)
    return _extract(text, fallback)


def _hold(*texts: str) -> None:
    while any(ENDLESS in text for text in texts):
        pass
    for text in texts:
        if WAITING in text:
            go = Path(text.splitlines()[0].removeprefix(WAITING))
            go.with_suffix(".pid").write_text(str(os.getpid()))
            while not go.exists():
                time.sleep(0.01)
