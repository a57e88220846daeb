"""Wall time of the quickstart, stage by stage, from the manifests and logs of a finished run.

Run ``make quickstart`` first (or with ``--run``, here).
"""

from __future__ import annotations

import re
import subprocess
import sys


def main() -> None:
    """Run the quickstart and print the seconds of every stage."""
    subprocess.run(["rm", "-rf", "runs/quickstart"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "sampling", "pipeline", "lit_configs/quickstart"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for stage, seconds in re.findall(r"^── (\w+): .*?^   (\d+) s$", done.stdout, re.DOTALL | re.MULTILINE):
        print(f"{stage:26}{seconds:>5} s")
    print(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
