"""How one token is sampled: uniform numbers, distributions and supports."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling.engines import SamplingOptions
from sampling.engines.token_sampling import sample_tokens, uniform
from stepverify.records import InputError

GOLDEN = 0x9E3779B97F4A7C15


MASK = (1 << 64) - 1


def splitmix64(seed, step):
    """Output number ``step`` of SplitMix64 (Steele et al. 2014, figure 17) in Python's unbounded integers."""
    z = (seed + GOLDEN * (step + 1)) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


# ── uniform numbers ───────────────────────────────────────────────────────────────────────────────


def test_splitmix64_first_outputs():
    """The published sequences of seeds 0 and 1234567; a double keeps the upper 53 bits."""
    published = {0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4], 1234567: [6457827717110365317, 3203168211198807973]}
    for seed, outputs in published.items():
        assert [splitmix64(seed, 0), splitmix64(seed, 1)] == outputs
        for step, output in enumerate(outputs):
            assert uniform(torch.tensor([seed]), step).tolist() == [(output >> 11) / 2**53]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), st.integers(0, 100_000))
@settings(deadline=None)
def test_uniform_equals_unbounded_integers(seeds, step):
    numbers = uniform(torch.tensor(seeds), step).tolist()
    assert numbers == [(splitmix64(seed, step) >> 11) / 2**53 for seed in seeds]
    assert all(0 <= u < 1 for u in numbers)


def test_uniform_mean_variance_and_independence():
    """Of 40,000 numbers: mean 1/2 (standard error 0.0014), variance 1/12 (0.0004), correlations 0 (0.005).

    Consecutive seeds and consecutive steps are the ones that are used together.
    """
    seeds = torch.arange(40_000) + (1 << 61)
    u = torch.stack([uniform(seeds, step) for step in range(3)])
    assert u.mean(1).tolist() == pytest.approx([1 / 2] * 3, abs=0.0075)
    assert u.var(1).tolist() == pytest.approx([1 / 12] * 3, abs=0.002)
    pairs = [(u[0], u[1]), (u[0], u[2]), (u[0][1:], u[0][:-1]), (u[1][1:], u[0][:-1])]
    for x, y in pairs:
        assert torch.corrcoef(torch.stack([x, y]))[0, 1].item() == pytest.approx(0, abs=0.025)


# ── one token ─────────────────────────────────────────────────────────────────────────────────────


def counts(probabilities, num, **options):
    logits = torch.tensor(probabilities).log().expand(num, -1)
    return torch.bincount(
        sample_tokens(logits, torch.arange(num), 0, SamplingOptions(**options)), minlength=len(probabilities)
    ).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        # squares 1/64, 16/64, 4/64, 1/64 over their sum 22/64
        ({"temperature": 0.5}, [1 / 22, 16 / 22, 4 / 22, 1 / 22]),
        ({"temperature": 1.0, "top_k": 2}, [0, 2 / 3, 1 / 3, 0]),
        ({"temperature": 1.0, "top_p": 0.6}, [0, 2 / 3, 1 / 3, 0]),
    ],
)
def test_draw_has_the_softmax_distribution(options, expected):
    """Chi-square over 4 cells has 3 degrees of freedom; 30 is passed once in a million."""
    num = 20_000
    sampled = counts([1 / 8, 1 / 2, 1 / 4, 1 / 8], num, **options)
    assert [d for d, e in zip(sampled, expected, strict=True) if e == 0] == [0] * expected.count(0)
    assert sum((d - num * e) ** 2 / (num * e) for d, e in zip(sampled, expected, strict=True) if e) < 30


@pytest.mark.parametrize(
    ("options", "support"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 3}, {1, 2, 3}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.01}, {1}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 3}),
        ({"top_p": 0.69}, {1, 3}),
        ({"top_p": 0.71}, {1, 2, 3}),
        ({"top_p": 0.91}, {0, 1, 2, 3}),
        # the two best have 4/7 = 0.571 and 3/7 among themselves
        ({"top_k": 2, "top_p": 0.5}, {1}),
        ({"top_k": 2, "top_p": 0.6}, {1, 3}),
    ],
)
def test_supports_of_top_k_and_top_p(options, support):
    """Probabilities 0.1, 0.4, 0.2, 0.3: in order 1, 3, 2, 0 with sums 0.4, 0.7, 0.9, 1."""
    sampled = counts([0.1, 0.4, 0.2, 0.3], 2000, temperature=1.0, **options)
    assert {token for token, count in enumerate(sampled) if count} == support


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=8),
    st.integers(0, 2**62),
    st.integers(0, 500),
    st.sampled_from([0.3, 1.0, 2.0]),
)
@settings(deadline=None)
def test_draw_inverts_the_cumulative_distribution(logits, seed, step, temperature):
    options = SamplingOptions(temperature=temperature)
    probabilities = (torch.tensor([logits]) / temperature).softmax(-1)[0].double().tolist()
    cumulative = list(accumulate(probabilities))
    target = (splitmix64(seed, step) >> 11) / 2**53 * cumulative[-1]
    expected = next(i for i, c in enumerate(cumulative) if c > target)
    assert sample_tokens(torch.tensor([logits]), torch.tensor([seed]), step, options).tolist() == [expected]


def test_temperature_zero_takes_the_largest_logit_whatever_the_seed():
    logits = torch.tensor([[0.1, 3.0, 2.9]]).expand(50, -1)
    assert sample_tokens(logits, torch.arange(50), 3, SamplingOptions(temperature=0)).tolist() == [1] * 50


def test_an_impossible_token_is_never_sampled():
    sampled = counts([0.0, 0.5, 0.0, 0.5, 0.0], 2000, temperature=1.0)
    assert sampled[0] == sampled[2] == sampled[4] == 0


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"temperature": -0.1}, "sampling.temperature"),
        ({"top_p": 0.0}, "sampling.top_p"),
        ({"top_p": 1.1}, "sampling.top_p"),
        ({"top_k": -1}, "sampling.top_k"),
        ({"max_tokens": 0}, "sampling.max_tokens"),
        ({"stop": ["x", ""]}, "sampling.stop"),
    ],
)
def test_bad_options_name_their_key(options, key):
    with pytest.raises(InputError, match=key):
        SamplingOptions(**options)
