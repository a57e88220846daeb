"""Run one stage of the sampling side: a function with documented keys each."""
