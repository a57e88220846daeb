"""Guard a process against what starting Ray would do to it: other signal handlers, and endless waits."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from stepverify.records import InputError

_PATIENCE = 10.0  # seconds for a connection to a cluster


def check_reachable(address: str | None) -> None:
    """Refuse an address at which nothing listens; Ray itself would ask for many minutes.

    Raises:
        InputError: the address.
    """
    host, _, port = (address or "").rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, or a name that Ray knows
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"address: {address}: no Ray cluster can be reached there ({error})") from None


@contextmanager
def unchanged_handlers() -> Iterator[None]:
    """Keep SIGTERM and the last resort for errors as they are: Ray replaces both."""
    before = signal.getsignal(signal.SIGTERM)
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) != before:
            signal.signal(signal.SIGTERM, before)
