"""Sampling for verifiers: generate, label, score, rank and report. Never imported by ``stepverify``."""
