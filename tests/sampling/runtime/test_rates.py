"""What each of several workers does in a second."""

from sampling.runtime import rates
from sampling.runtime.rates import Rates


def test_the_lowest_and_the_highest_rate_since_it_was_shown(monkeypatch):
    """10 and 40 tokens in 20 seconds are 0.5, shown as 0, and 2 a second; 12,000 in the next ten are 1,200, an idle one's are 0."""
    now = [100.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: now[0])
    measured = Rates("tokens")
    measured.add("a", 10)
    measured.add("b", 40)
    now[0] = 109.0
    assert measured.show(["a", "b"]) == "", "of nine seconds nothing is said"
    now[0] = 120.0
    assert measured.show(["a", "b"]) == "0 to 2 tokens/s each"
    measured.add("a", 12_000)
    now[0] = 125.0
    assert measured.show(["a", "b"]) == "0 to 2 tokens/s each", "as of the last ten seconds or more"
    now[0] = 130.0
    assert measured.show(["a", "c"]) == "0 to 1,200 tokens/s each", "b is gone"
    now[0] = 140.0
    assert measured.show(["a", "c"]) == "0 tokens/s each"
    assert measured.show(["a"]) == "", "its rate is that of all"
