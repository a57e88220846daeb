"""Every scenario of a hostile server ends as it should: a value, a retry, or one line."""

import pytest

from tests.helpers.servers import SCENARIOS, as_expected, outcome


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_scenario(scenario):
    found = outcome(scenario)
    assert as_expected(scenario, found), f"{scenario.expected!r} expected, {found!r} found"


def test_there_are_as_many_as_were_asked_for():
    assert len({s.name for s in SCENARIOS}) == len(SCENARIOS) >= 47
