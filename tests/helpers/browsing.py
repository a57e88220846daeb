"""Pages of the solution browser: what is in them, and a real browser that opens them."""

import base64
import json
import os
import shutil
import zlib
from html.parser import HTMLParser

import pytest

from stepverify.records import Solution, StepLabel


class Scripts(HTMLParser):
    """Texts of the scripts by id, and the attributes of all elements."""

    def __init__(self):
        super().__init__()
        self.texts, self.attributes, self.inside = {}, [], None

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag == "script":
            self.inside = dict(attrs).get("id", "program")

    def handle_endtag(self, tag):
        if tag == "script":
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside] = self.texts.get(self.inside, "") + data


def read_page(path):
    """The scripts of a page, and what is unpacked from those that are data."""
    scripts = Scripts()
    scripts.feed(path.read_text())
    packed = {name: text for name, text in scripts.texts.items() if name != "program"}
    return scripts, {
        name: json.loads(zlib.decompress(base64.b64decode(text, validate=True))) for name, text in packed.items()
    }


def solutions_of(data):
    """Problem id → its opened solutions, whatever shard they are in."""
    return {
        problem["id"]: data[f"s{problem['solutions']}"][str(number)]
        for number, problem in enumerate(data["index"]["problems"])
        if "solutions" in problem
    }


def solution(number, scores, *, problem="p", steps=("a", "b"), labels=None, correct=True, predicted="1", **known):
    """A graded solution; a label is a rating, or (correct rollouts, rollouts)."""
    labels = labels and [
        StepLabel(num_correct=one[0], num_rollouts=one[1]) if isinstance(one, tuple) else one and StepLabel(rating=one)
        for one in labels
    ]
    return Solution(**{
        "id": f"{problem}#{number}", "problem_id": problem, "problem": f"Problem {problem}", "answer": "1",
        "predicted": predicted, "correct": correct, "steps": [*steps], "scores": scores, "step_labels": labels,
    } | known)  # fmt: skip


def start_browser(folder, width=1400, height=900):
    """A browser without a window that downloads into a folder; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver is installed")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", f"--window-size={width},{height}", "--no-first-run", "--disable-gpu"):
        options.add_argument(argument)
    if os.geteuid() == 0:  # Chromium's sandbox refuses the superuser
        options.add_argument("--no-sandbox")
    options.add_argument(f"--user-data-dir={folder / 'profile'}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return selenium.Chrome(options=options, service=selenium.ChromeService(driver))
