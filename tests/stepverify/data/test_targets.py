import pytest

from stepverify.data.targets import StepTargets
from stepverify.records import StepLabel

R = {rating: StepLabel(rating=rating) for rating in (-1, 0, 1)}


def counted(correct, rollouts=4):
    return StepLabel(num_correct=correct, num_rollouts=rollouts)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.0, 1.0, 1.0, 1.0, 1.0]),
        ({"monte_carlo": "hard"}, [0.0, 1.0, 1.0, 1.0, 1.0]),
        ({"monte_carlo": "soft"}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"monte_carlo": "threshold"}, [0.0, 0.0, 0.0, 1.0, 1.0]),
        ({"monte_carlo": "threshold", "threshold": 0.25}, [0.0, 0.0, 1.0, 1.0, 1.0]),
        ({"monte_carlo": "threshold", "threshold": 0.0}, [0.0, 1.0, 1.0, 1.0, 1.0]),
        ({"monte_carlo": "threshold", "threshold": 0.75}, [0.0, 0.0, 0.0, 0.0, 1.0]),
        ({"monte_carlo": "hard", "threshold": 0.75}, [0.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_counts_become_targets(options, expected):
    """0 to 4 of 4 rollouts. Hard: any one is enough; threshold: the share must be above it, not at it."""
    assert StepTargets(**options)([counted(k) for k in range(5)]) == expected


def test_a_released_value_is_a_share():
    labels = [StepLabel(value=value) for value in (0.0, 0.3, 0.6, 1.0)]
    assert StepTargets()(labels) == [0, 1, 1, 1]
    assert StepTargets(monte_carlo="soft")(labels) == [0, 0.3, 0.6, 1]
    assert StepTargets(monte_carlo="threshold")(labels) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("neutral", "expected"),
    [("positive", [1.0, 1.0, 0.0, None]), ("negative", [1.0, 0.0, 0.0, None]), ("ignore", [1.0, None, 0.0, None])],
)
def test_neutral_steps_count_as_told(neutral, expected):
    assert StepTargets(neutral=neutral)([R[1], R[0], R[-1], None]) == expected
    assert StepTargets()([R[1], R[0], R[-1], None]) == [1.0, 1.0, 0.0, None]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("keep", [1.0, None, 0.0, 1.0, None, 0.0]),
        ("ignore", [1.0, None, 0.0, None, None, None]),
        ("negative", [1.0, None, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_steps_after_the_first_error_count_as_told(after, expected):
    labels = [R[1], None, R[-1], R[1], None, R[-1]]
    assert StepTargets(after_first_error=after)(labels) == expected
    assert StepTargets()(labels) == [1.0, None, 0.0, 1.0, None, 0.0]


@pytest.mark.parametrize("after", ["keep", "ignore", "negative"])
def test_without_an_error_nothing_is_after_it(after):
    labels = [R[1], counted(1), None, R[0]]
    assert StepTargets(after_first_error=after)(labels) == [1.0, 1.0, None, 1.0]
    assert StepTargets(after_first_error=after)([]) == []


def test_what_the_first_error_is_follows_from_the_other_options():
    """1 of 4 is no error when hard or soft, but one above the threshold of 1/2; a neutral step is one when negative."""
    labels = [counted(1), counted(4)]
    assert StepTargets(after_first_error="ignore")(labels) == [1.0, 1.0]
    assert StepTargets(monte_carlo="soft", after_first_error="ignore")(labels) == [0.25, 1.0]
    assert StepTargets(monte_carlo="threshold", after_first_error="ignore")(labels) == [0.0, None]
    labels = [R[0], R[1]]
    assert StepTargets(neutral="negative", after_first_error="ignore")(labels) == [0.0, None]
    assert StepTargets(neutral="ignore", after_first_error="ignore")(labels) == [None, 1.0]


def test_human_ratings_do_not_depend_on_how_counts_are_read():
    for how in ("hard", "soft", "threshold"):
        assert StepTargets(monte_carlo=how)([R[1], R[-1], counted(2, 3)])[:2] == [1.0, 0.0]
    assert StepTargets(monte_carlo="soft")([counted(2, 3)]) == [2 / 3]
