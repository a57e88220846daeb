"""Choose among the samples of a problem: rules and estimators, pure functions."""
