"""Folders of a stage that is opened, begun and ended."""

import pytest

from sampling.runtime.store import Store
from stepverify.records import InputError, Problem

RECORDS = [Problem(id=f"p/{i}", problem="é" * i) for i in range(6)]


def opened(folder, *, stage="generate", config=None, inputs=None, **more):
    return Store(folder, Problem, stage=stage, config=config or {}, inputs=inputs or {}, **more)


def entered(folder, **known):
    """A stage that began or went on, and was stopped at once."""
    with opened(folder, **known) as store:
        return store


def ended(folder, summary, **known):
    """A stage that finished without a record."""
    with opened(folder, may_be_empty=True, **known) as store:
        store.finish(summary)


def begun(folder, **known):
    """A stage that was killed after its first record."""
    with opened(folder, **known) as store:
        store.write(RECORDS[:1])


def refusal(folder, **known):
    with pytest.raises(InputError) as caught, opened(folder, **known):
        pass
    return str(caught.value)
