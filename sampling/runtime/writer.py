"""Write the records of many coroutines together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Generic

from sampling.runtime.store import Store
from stepverify.records import Record


class Writer(Generic[Record]):
    """Append records to a store, with one disk sync for many coroutines.

    Records that are written in the same turn of the event loop share the sync. As a context manager: pending records
    are also written on exit, whatever the reason.

    Args:
        store: the store to write to.
    """

    def __init__(self, store: Store[Record]) -> None:
        self.store: Store[Record] = store
        self._waiting: list[Record] = []
        self._written: asyncio.Future[None] | None = None

    async def write(self, records: Iterable[Record]) -> None:
        """Append records, and return once they are on disk."""
        records = list(records)
        if not records:
            return
        self._waiting += records
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._flush)
        # If this coroutine is cancelled, the others still wait, and its records are still written.
        await asyncio.shield(self._written)

    def keep(self, records: Iterable[Record]) -> None:
        """Append records without waiting: with the next ones, at the latest on exit."""
        self._waiting += records

    def _flush(self) -> None:
        records, self._waiting = self._waiting, []
        written, self._written = self._written, None
        if written is None:  # __exit__ has written everything meanwhile
            return
        try:
            self.store.write(records)
        except Exception as error:
            written.set_exception(error)
            written.exception()  # mark it as retrieved: all waiting coroutines may have been cancelled
        else:
            written.set_result(None)

    def __enter__(self) -> Writer[Record]:
        return self

    def __exit__(self, *_: object) -> None:
        records, self._waiting = self._waiting, []
        written, self._written = self._written, None
        if written is not None:
            written.cancel()
        self.store.write(records)
