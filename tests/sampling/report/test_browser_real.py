"""The solution browser in a real one: Chromium without a window."""

import json

import pytest

from sampling.report.browser import Describer, Sources, browse_report
from sampling.search import BeamSearch
from sampling.search.finished import read_search
from sampling.stages.select import select
from stepverify.jsonl import write_records
from stepverify.readers import HumanRatings, Solutions
from tests.helpers.browsing import solution, start_browser
from tests.helpers.searches import searched
from tests.helpers.sheets import write_scored

pytestmark = pytest.mark.slow
HOSTILE = "</script><img src=x onerror='window.hacked=1'><b>bold</b> &amp; <<2*3=6>>6"

TOKENS = {"orm": ["We", " find", "€", "", " end"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def driver(folder):
    found = start_browser(folder)
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(folder):
    """100 problems × 32 solutions: of problem p the first p % 32 are correct. One step of one of them has a rare word."""
    rows = []
    for p in range(100):
        for i in range(32):
            solved, values = i < p % 32, [0.9, 0.2 if i % 2 else 0.8]
            steps = [f"We find ${p}^2 + \\frac{{{i}}}{{2}}$", "the rare zyzzyva" if (p, i) == (70, 3) else "#### 1"]
            orm = [0.5, 0.9, 0.9, 0.9, 0.7 if i else 0.1]
            rows.append(solution(
                i, {"prm": values, "orm": orm}, problem=f"p{p}", steps=steps, correct=solved, predicted="1" if solved else "2",
                labels=[(3, 8), 1 if solved else -1] if i < 4 else None, token_texts=TOKENS,
            ))  # fmt: skip
    hostile = [HOSTILE, "costs $5 or $10, so $x<y$"]
    rows.append(
        solution(0, {"prm": [0.1, 0.9], "orm": [0.2] * 5}, problem="hostile", steps=hostile, token_texts=TOKENS)
    )
    write_records(folder / "s.jsonl", rows)
    searched(folder / "beam", BeamSearch(4, 2), 2)
    path = folder / "browse.html"
    sources = Sources(folder / "s.jsonl", searches=[read_search("beam", folder / "beam")])
    browse_report(path, sources, Describer(), 10_000)
    return path


def wait(driver, script, *arguments):
    """The first true value of an expression in the page."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 20, 0.05).until(lambda d: d.execute_script(f"return ({script})", *arguments))


def visit(driver, path, hash=""):
    driver.get("about:blank")
    driver.get(f"{path.as_uri()}{hash}")
    wait(driver, "document.querySelector('.opened, #detail .empty') && document.querySelector('#found').textContent")


def press(driver, keys):
    from selenium.webdriver.common.by import By

    driver.find_element(By.ID, "list").send_keys(keys)


def found(driver):
    return driver.execute_script("return document.querySelector('#found').textContent")


def choose(driver, key, value):
    driver.execute_script(
        "const s = document.querySelector(`[data-key=${arguments[0]}]`); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        key, value,
    )  # fmt: skip


def text(driver, selector):
    return wait(driver, "document.querySelector(arguments[0])?.innerText", selector)


def opened(driver, name):
    wait(driver, "document.querySelector('.opened')?.ariaLabel === arguments[0]", name)


def test_it_shows_searches_filters_and_reopens(driver, page):
    """All is inside the page; only the rows in view are elements; a link opens the same again."""
    visit(driver, page)
    assert found(driver) == "3,201 solutions of 103 problems"
    assert driver.execute_script("return document.querySelectorAll('[data-row]').length") < 80
    opened(driver, "Solution p0#0")
    assert wait(driver, "document.querySelectorAll('.step math mfrac').length") == 1
    assert "3 of 8 rollouts" in text(driver, ".step .rollouts")
    assert "orm after every token" in text(driver, ".tokens h3")
    assert "falls most here, from 0.90 to 0.10" in text(driver, ".tokens .legend")
    press(driver, "j")
    opened(driver, "Solution p0#1")
    press(driver, "J")
    opened(driver, "Problem p1")
    # Correct answers of p0 … p99: 0 + … + 31 three times, and 0 + 1 + 2 + 3; and that of the hostile one.
    choose(driver, "only", "correct")
    number = f"{3 * 31 * 32 // 2 + 6 + 1:,}"
    assert found(driver) == f"{number} solutions of 97 problems"
    assert text(driver, "option[value=correct]") == f"correct ({number})"
    driver.execute_script(
        "document.querySelector('#query').value = 'ZYZZYVA'; document.querySelector('#query').dispatchEvent(new Event('input'))"
    )
    wait(driver, "document.querySelector('#found').textContent === '1 solutions of 1 problems'")
    press(driver, "j")
    press(driver, "j")
    opened(driver, "Solution p70#3")
    assert wait(driver, "CSS.highlights.get('match')?.size") == 1
    address = driver.current_url
    visit(driver, page, address[address.index("#") :])
    opened(driver, "Solution p70#3")
    wait(driver, "document.querySelector('#found').textContent === '1 solutions of 1 problems'")
    assert driver.execute_script("return document.querySelector('[data-key=only]').value") == "correct"
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_sorts_and_odd_ones(driver, page):
    """Every solution with an even index has a last value of 0.8: incorrect ones of these are confident errors."""
    visit(driver, page, "#only=confident&v=prm&sort=high")
    expected = sum(i >= p % 32 for p in range(100) for i in range(0, 32, 2))
    assert found(driver).startswith(f"{expected:,} solutions of ")
    press(driver, "j")
    assert text(driver, ".scores .warn") == "incorrect, high score"
    visit(driver, page, "#only=missed&v=prm&s=p64%232")
    # Labelled are i < 4, the second step as incorrect where i >= p % 32; an even i sees no error.
    expected = sum(i >= p % 32 for p in range(100) for i in (0, 2))
    assert found(driver).startswith(f"{expected:,} solutions of ")
    opened(driver, "Solution p64#2")
    assert "prm: misses the error at step 2, no value is below 0.50." in text(driver, ".outcomes")
    assert "first error by the labels" in text(driver, ".step.error")
    visit(driver, page, "#only=nonsense&sort=hard")
    assert found(driver) == "3,201 solutions of 103 problems"


def test_hostile_texts_stay_texts(driver, page):
    visit(driver, page, "#s=hostile%230")
    opened(driver, "Solution hostile#0")
    assert HOSTILE in wait(driver, "document.querySelector('.step .text').textContent")
    assert wait(driver, "document.querySelectorAll('.step math').length") == 1
    assert driver.execute_script("return document.querySelector('[data-step=\"1\"] .text').textContent").startswith(
        "costs $5 or $10, so "
    )
    assert driver.execute_script("return [document.querySelectorAll('img, b b').length, window.hacked ?? null]") == [
        0,
        None,
    ]
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_trees_are_shown(driver, page):
    visit(driver, page, "#p=p%2F0")
    opened(driver, "Problem p/0")
    assert "expanded" in text(driver, ".trees .legend")
    assert wait(driver, "document.querySelectorAll('.tree .chosen').length") >= 2
    before = driver.execute_script("return document.querySelectorAll('[role=treeitem]').length")
    driver.execute_script("document.querySelector('.trees input[type=checkbox]').click()")
    assert driver.execute_script("return document.querySelectorAll('[role=treeitem]').length") < before
    driver.execute_script("document.querySelector('.tree [tabindex=\"0\"]').focus()")
    from selenium.webdriver.common.keys import Keys

    driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert driver.execute_script("return document.activeElement.role") == "treeitem"
    opened(driver, "Problem p/0")


def test_people_who_rate_a_report_see_no_scores_at_first(driver, page):
    """Neither verdicts nor labels; they come back where they are asked for, and when rating ends."""
    visit(driver, page, "#s=p64%232")
    opened(driver, "Solution p64#2")
    shown = "document.querySelectorAll('.bar, .mini, .sign, .verdict.good, .verdict.bad, .tokens, .share').length"
    assert wait(driver, f"{shown} > 9")
    press(driver, "r")
    wait(driver, f"document.querySelectorAll('.rate').length === 6 && {shown} === 0")
    driver.execute_script("document.querySelector('#peek').click()")
    wait(driver, f"document.querySelectorAll('.rate').length === 6 && {shown} > 9")
    press(driver, "r")
    wait(driver, "document.querySelectorAll('.rate').length === 0")


def test_people_rate_and_the_reader_reads(driver, folder):
    """Rated by keys and clicks, downloaded, read as step labels; a page elsewhere goes on from the file."""
    write_scored(folder / "scored")
    select(folder / "scored", folder / "sheets", per_problem=2)
    visit(driver, folder / "sheets/rate.html")
    opened(driver, "Solution q#0")
    assert "Reference answer" in text(driver, ".reference")
    assert (
        driver.execute_script("return document.querySelectorAll('.bar, .scores, .verdict.good, .verdict.bad').length")
        == 0
    )
    press(driver, "1")
    press(driver, "-")
    driver.execute_script(
        "const r = document.querySelectorAll('.remark')[1]; r.value = 'wrong sum </script>'; r.dispatchEvent(new Event('input'))"
    )
    press(driver, "n")
    opened(driver, "Solution q#1")
    driver.execute_script("document.querySelector('.rate[data-value=\"0\"]').click()")
    driver.execute_script(
        "const r = document.querySelector('#rater'); r.value = 'Ada'; r.dispatchEvent(new Event('input'))"
    )
    assert text(driver, "#progress") == "2 of 4 rated"
    visit(driver, folder / "sheets/rate.html", "#s=q%230")
    opened(driver, "Solution q#0")
    assert wait(driver, "document.querySelectorAll('.rate[aria-pressed=true]').length") == 2, (
        "the browser keeps ratings"
    )
    press(driver, "d")
    wait(driver, "document.querySelector('#progress').textContent === '2 sheets in ratings.jsonl'")
    file = folder / "ratings.jsonl"
    for _ in range(100):
        if file.is_file():
            break
        driver.execute_async_script("setTimeout(arguments[0], 50)")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0]["meta"] == {"step_remarks": ["", "wrong sum </script>"], "rater": "Ada"}
    read = list(HumanRatings(str(file), solutions=Solutions(str(folder / "scored"))).solutions())
    assert [(s.id, [label and label.rating for label in s.step_labels]) for s in read] == [
        ("q#0", [1, -1]),
        ("q#1", [0, None]),
    ]
    driver.execute_script("localStorage.clear()")
    visit(driver, folder / "sheets/rate.html", "#s=q%230")
    assert text(driver, "#progress") == "0 of 4 rated"
    from selenium.webdriver.common.by import By

    driver.find_element(By.ID, "upload").send_keys(str(file))
    wait(driver, "document.querySelector('#progress').textContent === '2 sheets opened.'")
    assert wait(driver, "document.querySelectorAll('.rate[aria-pressed=true]').length") == 2


def test_it_fits_a_phone(driver, page):
    """390 pixels wide: nothing is cut off sideways; the list and what is opened take turns."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        visit(driver, page, "#s=p40%230")
        opened(driver, "Solution p40#0")
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert driver.execute_script(
            "return document.querySelector('#detail').scrollWidth <= document.querySelector('#detail').clientWidth"
        )
        driver.execute_script("document.querySelector('.back').click()")
        assert driver.execute_script(
            "return [document.querySelector('#side').offsetWidth, document.querySelector('#detail').offsetWidth]"
        ) == [390, 0]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
