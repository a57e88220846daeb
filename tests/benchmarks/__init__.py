"""Benchmarks: ``make bench`` or ``python -m tests.benchmarks.bench_NAME``."""
