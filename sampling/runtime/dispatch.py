"""Divide requests among replicas: fewest outstanding first, but where a prefix is known rather there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Collection, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from sampling.engines.base import Request

Replica = TypeVar("Replica", bound=Hashable)

_REMEMBERED = 200_000  # prefixes whose replica is remembered
_BLOCK = 8  # tokens: prefixes are told apart at multiples of this length
_CHARACTERS = 32  # the same for prompts that are texts
_LEAD = 1 / 4  # share of a replica's limit by which it may be ahead of the least loaded one to keep a known prefix


class Dispatch(Generic[Replica]):
    """Choose a replica for each request.

    A request goes to the replica that was given its longest known prefix, unless that one has so much outstanding that
    another would have it done sooner; otherwise to the one with least outstanding. A replica is given no more than its
    limit, so that what comes later, such as the next step of a search, does not wait in a long queue of one replica
    while another is idle.

    Args:
        limit: largest amount outstanding at a replica, for example completions; a larger request has a replica alone.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._outstanding: dict[Replica, int] = {}
        self._alone: set[Replica] = set()  # replicas with a request that nothing may accompany
        self._paused: set[Replica] = set()
        self._homes = OrderedDict[Hashable, Replica]()

    @property
    def outstanding(self) -> dict[Replica, int]:
        """Return the amount that each replica has outstanding."""
        return dict(self._outstanding)

    def add(self, replica: Replica) -> None:
        """Give requests to a replica from now on."""
        self._outstanding[replica] = 0

    def remove(self, replica: Replica) -> None:
        """Give no further requests to a replica."""
        self._outstanding.pop(replica, None)
        self._alone.discard(replica)
        self._paused.discard(replica)

    def pause(self, replica: Replica) -> None:
        """Give no requests to a replica until :meth:`resume`; what it has outstanding stays counted."""
        self._paused.add(replica)

    def resume(self, replica: Replica) -> None:
        """Give requests to a replica again."""
        self._paused.discard(replica)

    def free(self, amount: int = 1, *, alone: bool = False) -> list[Replica]:
        """Return the replicas that have room for a request."""
        return [
            replica for replica, load in self._outstanding.items()
            if replica not in self._alone and replica not in self._paused
            and (not load or (not alone and load + amount <= self.limit))
        ]  # fmt: skip

    def choose(
        self, prefixes: Sequence[Hashable], amount: int, *, alone: bool = False, avoid: Collection[Replica] = ()
    ) -> Replica | None:
        """Choose a replica and count the request as outstanding; None where none has room.

        Args:
            prefixes: keys of the request's prefixes, the shortest first.
            amount: what the request adds to a replica's outstanding amount.
            alone: nothing else may run on the replica meanwhile.
            avoid: replicas that are chosen only where no other has room.
        """
        free = self.free(amount, alone=alone)
        if not free:
            return None
        free = [replica for replica in free if replica not in avoid] or free
        chosen = min(free, key=self._outstanding.__getitem__)
        home = next((home for key in reversed(prefixes) if (home := self._homes.get(key)) is not None), None)
        if home in free and self._outstanding[home] - self._outstanding[chosen] <= _LEAD * self.limit:
            chosen = home
        self._outstanding[chosen] += amount
        if alone:
            self._alone.add(chosen)
        for key in prefixes:
            self._homes[key] = chosen
            self._homes.move_to_end(key)
        while len(self._homes) > _REMEMBERED:
            self._homes.popitem(last=False)
        return chosen

    def release(self, replica: Replica, amount: int) -> None:
        """Count a request as ended; nothing happens where the replica was removed meanwhile."""
        if replica in self._outstanding:
            self._outstanding[replica] -= amount
            self._alone.discard(replica)


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Replica]):
    prefixes: Sequence[Hashable]
    amount: int
    alone: bool
    avoid: Collection[Replica]
    replica: asyncio.Future[Replica] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Dispatcher(Generic[Replica]):
    """Let requests wait for a replica, in order.

    Args:
        limit: see :class:`Dispatch`.

    Attributes:
        dispatch: chooses the replicas.
    """

    def __init__(self, limit: int) -> None:
        self.dispatch = Dispatch[Replica](limit)
        self._waiting = deque[_Waiting[Replica]]()
        self._error: BaseException | None = None

    @asynccontextmanager
    async def hold(
        self, prefixes: Sequence[Hashable], amount: int, *, alone: bool = False, avoid: Collection[Replica] = (),
        first: bool = False,
    ) -> AsyncIterator[Replica]:  # fmt: skip
        """Wait for a replica, and hold an amount of it inside the block.

        Args:
            prefixes: see :meth:`Dispatch.choose`; so are ``amount``, ``alone`` and ``avoid``.
            amount: what is held.
            alone: nothing else may run on the replica meanwhile.
            avoid: replicas that are chosen only where no other has room.
            first: it is given one before all that wait, as it has waited before.

        Raises:
            BaseException: what :meth:`fail` was given.
        """
        if self._error is not None:
            raise self._error
        mine = _Waiting[Replica](prefixes, amount, alone, avoid)
        (self._waiting.appendleft if first else self._waiting.append)(mine)
        self._admit()
        try:
            replica = await mine.replica
        except asyncio.CancelledError:
            if mine.replica.done() and not mine.replica.cancelled() and mine.replica.exception() is None:
                self._release(mine.replica.result(), amount)  # it was given one at the same moment
            self._admit()
            raise
        try:
            yield replica
        finally:
            self._release(replica, amount)

    def add(self, replica: Replica) -> None:
        """Give requests to a replica from now on."""
        self.dispatch.add(replica)
        self._admit()

    def remove(self, replica: Replica) -> None:
        """Give no further requests to a replica."""
        self.dispatch.remove(replica)

    def pause(self, replica: Replica) -> None:
        """Give no requests to a replica until :meth:`resume`."""
        self.dispatch.pause(replica)

    def resume(self, replica: Replica) -> None:
        """Give requests to a paused replica again."""
        self.dispatch.resume(replica)
        self._admit()

    def fail(self, error: BaseException) -> None:
        """End all requests that wait, and those to come, with an error."""
        self._error = error
        for waiting in self._waiting:
            if not waiting.replica.done():
                waiting.replica.set_exception(error)
        self._waiting.clear()

    def _release(self, replica: Replica, amount: int) -> None:
        self.dispatch.release(replica, amount)
        self._admit()

    def _admit(self) -> None:
        """Give replicas to those that wait longest; none is overtaken by a smaller request."""
        while self._waiting:
            first = self._waiting[0]
            if first.replica.done():  # cancelled by its caller
                self._waiting.popleft()
                continue
            replica = self.dispatch.choose(first.prefixes, first.amount, alone=first.alone, avoid=first.avoid)
            if replica is None:
                return
            self._waiting.popleft()
            first.replica.set_result(replica)


def prefix_keys(request: Request) -> list[Hashable]:
    """Return a key for each prefix of a prompt of a whole number of blocks, the shortest first."""
    content: Any = request.prompt_ids + request.prefix_ids
    size = _BLOCK
    if not content:
        content = request.prompt or "".join(message.content for message in request.messages or ())
        size = _CHARACTERS
    keys: list[Hashable] = []
    key = 0
    for end in range(size, len(content) + 1, size):
        block = content[end - size : end]
        keys.append(key := hash((key, block if isinstance(block, str) else tuple(block))))
    return keys
