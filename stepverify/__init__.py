"""Verifiers for step-by-step mathematics: generator, outcome verifier, process reward model."""

__version__ = "0.1.0"
