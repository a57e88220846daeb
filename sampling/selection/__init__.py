"""Select among the samples of a problem, with rules and estimators.

All functions are pure.
"""
