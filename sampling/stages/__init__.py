"""Run a stage: one function with documented arguments for each."""
