"""The contestants of ``bench_train``, each run in a process of its own: ``python -m tests.benchmarks.peers.NAME SPEC``."""
