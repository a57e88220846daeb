"""Sample, label, score, rank and report solutions for verifiers.

Imported by nothing in ``stepverify``.
"""
