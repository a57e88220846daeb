"""Start the worker processes of the grader, which fork from servers of their own."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any, ClassVar

# Not fork, which would copy held locks of torch's and tokenizers' threads.
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
_LOCK = threading.Lock()


class _Server:
    """Hold a fork server of the grader alone, with modules that its processes find imported.

    The program's own fork server keeps its own modules. A module of which the import takes long is imported once, so
    that a worker starts within milliseconds, and killing one is cheap.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = list(modules)
        self._server: Any = None
        self._owner = 0  # process id: a fork of the program has no part in its servers

    @property
    def used(self) -> bool:
        """Return whether this program has started a process with it."""
        return self._server is not None and self._owner == os.getpid()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let new processes of the method ``forkserver`` fork from this server, and only of this method."""
        if _METHOD != "forkserver":
            yield
            return
        from multiprocessing import forkserver

        if not self.used:
            self._server, self._owner = forkserver.ForkServer(), os.getpid()
            self._server.set_forkserver_preload(self._modules)
        whole = forkserver.connect_to_new_process
        forkserver.connect_to_new_process = self._server.connect_to_new_process
        try:
            yield
        finally:
            forkserver.connect_to_new_process = whole


class _Worker(multiprocessing.get_context(_METHOD).Process):  # type: ignore[misc]
    """Start a process that does not import the program's main script.

    By default it would: a script without a main guard would then restart itself in every worker, one with a guard would
    import torch there, and one read from standard input would fail.
    """

    server: ClassVar[_Server] = _Server("pebble", "stepverify.answers.pool")

    def start(self) -> None:
        with _LOCK, _main_hidden(), self.server.in_use():
            super().start()


class _AlgebraWorker(_Worker):
    """Start a process that has Math-Verify loaded."""

    server: ClassVar[_Server] = _Server("pebble", "stepverify.answers.pool", "stepverify.answers.warm_up")


def context(algebra: bool) -> Any:
    """Return a context of multiprocessing for workers with computer algebra, or without."""
    context = copy.copy(multiprocessing.get_context(_METHOD))  # the original is global
    context.Process = _AlgebraWorker if algebra else _Worker  # type: ignore[attr-defined]
    return context


def has_algebra() -> bool:
    """Check whether workers with computer algebra start at once, since others did before."""
    return _AlgebraWorker.server.used


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    # multiprocessing finds the script by these two names. The stand-in keeps all others, so that
    # another thread that pickles something of __main__ meanwhile does not notice.
    main = sys.modules["__main__"]
    stand_in = types.ModuleType("__main__")
    vars(stand_in).update({k: v for k, v in vars(main).items() if k not in ("__file__", "__spec__")})
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = main
