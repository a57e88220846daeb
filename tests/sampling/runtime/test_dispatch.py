"""Which replica a request goes to, and in which order requests wait."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampling.engines import Request
from sampling.runtime.dispatch import Dispatch, Dispatcher, prefix_keys


def dispatch(limit=8, replicas="ab"):
    made = Dispatch(limit)
    for name in replicas:
        made.add(name)
    return made


def test_the_least_loaded_is_chosen_and_none_beyond_its_limit():
    """Amounts 3, 2, 4 go to a, b, b: 3 and 6 of 8 are outstanding, so that 3 more fit a alone, and then 6 neither."""
    made = dispatch()
    assert [made.choose([], amount) for amount in (3, 2, 4, 3, 6)] == ["a", "b", "b", "a", None]
    made.release("a", 3)
    assert made.outstanding == {"a": 3, "b": 6}
    assert made.choose([], 5) == "a"


def test_a_request_beyond_the_limit_has_a_replica_alone():
    made = dispatch()
    assert made.choose([], 20) == "a"
    assert made.choose([], 1) == "b"
    assert made.choose([], 20) is None
    made.release("b", 1)
    assert made.choose([], 20) == "b"


def test_a_known_prefix_is_followed_while_its_replica_is_not_ahead():
    """A quarter of the limit, 2, may it be ahead. The longest known prefix counts."""
    made = dispatch()
    assert made.choose(["x"], 1) == "a"
    assert made.choose(["y"], 1) == "b"
    assert made.choose(["x", "x1"], 1) == "a"
    assert made.choose(["x", "x1", "x2"], 1) == "a", "2 to 1"
    assert made.choose(["x"], 1) == "a", "3 to 1"
    assert made.choose(["x"], 1) == "b", "4 to 1 is too much, and now b knows it too"
    assert made.choose(["x", "x1"], 1) == "a", "but not what follows: 4 to 2"


def test_nothing_accompanies_what_must_be_alone():
    made = dispatch()
    assert made.choose([], 1) == "a"
    assert made.choose([], 1, alone=True) == "b"
    assert made.choose([], 7) == "a"
    assert made.choose([], 1) is None
    made.release("b", 1)
    assert made.choose([], 1) == "b"


def test_a_removed_replica_gets_nothing_and_its_requests_may_still_end():
    made = dispatch()
    assert made.choose(["x"], 4) == "a"
    made.remove("a")
    assert made.choose(["x"], 4) == "b"
    made.release("a", 4)
    assert made.outstanding == {"b": 4}


def test_a_paused_replica_gets_nothing_and_keeps_its_count():
    """Also where it has the prefix; 4 of 8 were outstanding at a, 2 have ended, so that 6 more fit."""
    made = dispatch()
    assert [made.choose(["x"], 2), made.choose(["x"], 2)] == ["a", "a"]
    made.pause("a")
    assert made.choose(["x"], 6) == "b"
    made.release("a", 2)
    assert (made.choose([], 3), made.outstanding) == (None, {"a": 2, "b": 6})
    made.resume("a")
    assert (made.choose([], 7), made.choose([], 6)) == (None, "a")


def test_replicas_are_avoided_where_another_has_room():
    made = dispatch(2)
    assert [made.choose(["x"], 1, avoid={"a"}) for _ in range(3)] == ["b", "b", "a"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=40), st.integers(1, 4), st.integers(1, 8))
def test_no_replica_has_more_than_its_limit_unless_alone(amounts, replicas, limit):
    made = dispatch(limit, range(replicas))
    held = []
    for amount, key in amounts:
        replica = made.choose([key], amount)
        if replica is None:
            assert all(load + amount > limit for load in made.outstanding.values() if load)
            assert all(made.outstanding.values())
            made.release(*held.pop(0))
        else:
            held.append((replica, amount))
        for name, load in made.outstanding.items():
            assert load == sum(amount for owner, amount in held if owner == name)
            assert load <= limit or load in [amount for owner, amount in held if owner == name]


def test_who_waits_longest_is_next_and_is_not_overtaken():
    """One replica with 4 places: of 3, 3, 1 the last would fit beside the first, but waits for its turn."""

    async def main():
        dispatcher, order = Dispatcher(4), []
        dispatcher.add("a")

        async def one(amount):
            async with dispatcher.hold([], amount):
                order.append(amount)
                await asyncio.sleep(0)
                order.append(-amount)

        await asyncio.gather(*map(one, (3, 2, 1)))
        return order

    assert asyncio.run(main()) == [3, -3, 2, 1, -2, -1]


def test_a_cancelled_request_gives_its_place_back():
    """Cancelled while it waits, and at the moment when it is given its place."""

    async def main():
        dispatcher = Dispatcher(4)
        dispatcher.add("a")

        async def one(amount):
            async with dispatcher.hold([], amount):
                await asyncio.sleep(0)

        first, second = asyncio.create_task(one(4)), asyncio.create_task(one(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        third = asyncio.create_task(one(4))
        await asyncio.sleep(0)
        third.cancel()  # it was given its place in this turn
        await asyncio.gather(third, return_exceptions=True)
        assert dispatcher.dispatch.outstanding == {"a": 0}
        await one(4)

    asyncio.run(main())


def test_a_failure_ends_what_waits_and_what_comes():
    async def main():
        dispatcher = Dispatcher(4)

        async def one():
            async with dispatcher.hold([], 1):
                pytest.fail("there is no replica")

        waiting = asyncio.create_task(one())
        await asyncio.sleep(0)
        dispatcher.fail(ValueError("all gone"))
        for attempt in (waiting, one()):
            with pytest.raises(ValueError, match="all gone"):
                await attempt

    asyncio.run(main())


def test_prefixes_are_told_apart_in_blocks():
    """Eight tokens: of 20 and 17 with 16 in common two keys are equal; a text is divided by 32 characters."""
    one, two = (prefix_keys(Request("", [*range(16), *rest], 1, 0)) for rest in ([1, 2, 3, 4], [9]))
    assert one == two
    assert len(one) == 2
    three = prefix_keys(Request("", [*range(8)], 1, 0, [*range(8, 16), *range(50, 58)]))
    assert three[:2] == one
    assert len(three) == 3
    texts = [prefix_keys(Request("", [], 1, 0, prompt="x" * 40 + end)) for end in ("a", "b" * 30)]
    assert texts[0] == texts[1][:1]
    assert [len(keys) for keys in texts] == [1, 2]


def test_who_waited_before_is_first_and_a_replica_that_is_resumed_is_given_at_once():
    async def main():
        dispatcher, order = Dispatcher(1), []
        dispatcher.add("a")
        dispatcher.pause("a")

        async def one(name, first):
            async with dispatcher.hold([], 1, first=first):
                order.append(name)

        waiting = [asyncio.create_task(one(name, name == "again")) for name in ("new", "newer", "again")]
        await asyncio.sleep(0)
        assert order == []
        dispatcher.resume("a")
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(main()) == ["again", "new", "newer"]
