"""Keep what was sampled and scored, so that no search asks for it again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic

from sampling.runtime.store import Store
from sampling.runtime.writer import Writer
from sampling.search.records import Expansion, Values
from stepverify.records import Record, record_key


class Kept(Generic[Record]):
    """Hold records by id, and write new ones.

    A record is held until it is taken, which a search does once.

    Args:
        store: the open store of this search.
        before: records of other searches, which are copied when they are wanted.
    """

    def __init__(self, store: Store[Record], before: Iterable[Record] = ()) -> None:
        self._before = {record_key(record): record for record in before}
        self._known = {record_key(record): record for record in store.records()}
        self.writer = Writer(store)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    async def copy(self, keys: Iterable[str]) -> None:
        """Copy the records of other searches that this one lacks."""
        found = [self._before.pop(key) for key in keys if key in self._before]
        await self.add(record for record in found if record_key(record) not in self.writer.store.done)

    async def add(self, records: Iterable[Record]) -> None:
        """Write records, and hold them."""
        fresh = list(records)
        await self.writer.write(fresh)
        self._known.update((record_key(record), record) for record in fresh)

    def take(self, key: str) -> Record | None:
        """Return a record, and hold it no longer; None where there is none."""
        return self._known.pop(key, None)


class Memory:
    """Hold the expansions and values of a search."""

    def __init__(self, expansions: Kept[Expansion], values: Kept[Values]) -> None:
        self.expansions, self.values = expansions, values

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write what is pending on exit, whatever the reason."""
        with self.expansions.writer, self.values.writer:
            yield
