"""How long the two programs take to answer ``--help``: whole processes, medians of several runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main(runs: int = 7) -> None:
    """Print the medians."""
    for module in ("stepverify.cli", "sampling"):
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", module, "--help"], check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        print(
            f"{module:16} --help: median {statistics.median(seconds):.2f} s of {runs} runs (max {max(seconds):.2f} s)"
        )


if __name__ == "__main__":
    main()
