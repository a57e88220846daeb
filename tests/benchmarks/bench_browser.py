"""The solution browser of many solutions: size of the page, time to write it, to paint it, and to search all of it.

    python -m tests.benchmarks.bench_browser [--problems 1000] [--samples 32] [--scores FILE] [--keep FOLDER]

Synthetic solutions of random words and numbers with step values, rollout counts and a solution score; or real ones.
Painting is measured in Chromium without a window from its start to read the file, and left out where none is installed.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from stepverify.jsonl import write_records
from stepverify.records import Solution, StepLabel
from tests.helpers.browsing import start_browser

TEXT = (
    "so each of the then we multiply add which gives total number remaining cost price dollars eggs days weeks hours she "
    "he they sold bought bread loaves apples students teacher half twice three times more than fewer left over share "
    "friends money saves spends every morning rate speed distance miles per hour minutes therefore equals answer final"
)
WORDS = TEXT.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--scores", type=Path, help="scored solutions in place of synthetic ones")
    parser.add_argument("--keep", type=Path, help="folder for the page; a temporary one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        scores = arguments.scores or folder / "scored.jsonl"
        if not scores.exists():
            rng = random.Random(0)
            write_records(scores, (s for p in range(arguments.problems) for s in samples(rng, p, arguments.samples)))
        page = folder / "browse.html"
        code = (
            "from pathlib import Path; from sampling.report.browser import Describer, Sources, browse_report; "
            f"print(browse_report(Path({str(page)!r}), Sources(Path({str(scores)!r})), Describer(), 40_000).describe())"
        )
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        print(f"{said}: {page.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s of CPU, peak {peak:.0f} MiB")
        try:
            print(paint(page, folder))
        except pytest.skip.Exception as reason:
            print(f"not painted: {reason}")


def samples(rng: random.Random, problem: int, number: int) -> list[Solution]:
    """Solutions of 2 to 8 steps, about 120 tokens, with rollouts from every step of one in ten."""
    text, found = sentence(rng, 45), []
    for i in range(number):
        steps = [
            f"{sentence(rng, 14)} $\\frac{{{rng.randrange(99)}}}{{{rng.randrange(9)}}}$"
            for _ in range(rng.randint(2, 8))
        ]
        labels = [StepLabel(num_correct=rng.randrange(9), num_rollouts=8) for _ in steps] if i % 10 == 0 else None
        found.append(Solution(
            id=f"bench/{problem}#{i}", problem_id=f"bench/{problem}", problem=text, answer="7", steps=steps,
            predicted=str(rng.randrange(5, 9)), correct=rng.random() < 0.5, finish="stop", seed=rng.randrange(1 << 62),
            scores={"prm": [round(rng.random(), 6) for _ in steps], "orm": [round(rng.random(), 6)]}, step_labels=labels,
        ))  # fmt: skip
    return found


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < 0.8 else str(rng.randrange(1000)) for _ in range(words)) + "."


def paint(page: Path, folder: Path) -> str:
    driver = start_browser(folder)
    try:
        times = []
        for _ in range(3):
            driver.get("about:blank")
            driver.get(page.as_uri())
            ready = "performance.getEntriesByName('painted').length && document.querySelector('.opened')"
            while not driver.execute_script(f"return Boolean({ready})"):
                time.sleep(0.02)
            times.append(driver.execute_script(
                "return [performance.getEntriesByName('first-contentful-paint')[0].startTime, "
                "performance.getEntriesByName('painted')[0].startTime, "
                "performance.getEntriesByType('navigation')[0].domComplete]"
            ))  # fmt: skip
        first, painted, complete = (sorted(column)[1] for column in zip(*times, strict=True))
        rows = driver.execute_script("return document.querySelectorAll('[data-row]').length")
        search = driver.execute_async_script(
            "const [word, done] = arguments, from = performance.now(), q = document.querySelector('#query');"
            "q.value = word; q.dispatchEvent(new Event('input'));"
            "const wait = () => document.querySelector('#searched').hidden && performance.now() - from > 250 "
            "? done(performance.now() - from) : setTimeout(wait, 20); wait();", "therefore apples",
        )  # fmt: skip
        return (
            f"first paint {first:.0f} ms, list painted {painted:.0f} ms, whole file read {complete:.0f} ms (medians of 3); "
            f"all steps searched in {search / 1000:.1f} s; {rows} rows are elements"
        )
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
