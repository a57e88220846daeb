"""Search trees in the solution browser."""

from sampling.report.browser import Describer, Sources, browse_report
from sampling.report.browser.trees import tally_answers, tree
from sampling.search import BeamSearch, BestOfN, Lookahead
from sampling.search.finished import read_search
from sampling.stages.report import report
from tests.helpers.browsing import read_page
from tests.helpers.budgets import flat
from tests.helpers.searches import searched


def test_a_tree_by_hand():
    """Two first steps; the second was continued twice, once to an end that the rule chose, once to a limit of depth."""
    expansions = [
        ["p@a+1", "", "second", "step", 2], ["p@a+0", "", "first", "step", 3], ["p@b+1", "p@a+1", "deep", "step", 4],
        ["p@b+0", "p@a+1", "end", "stop", 5], ["p@cg+0", "p@a+0", "peek", "stop", 6], ["p@d+10", "p@b+1", "x", "length", 7],
        ["p@d+9", "p@b+1", "y", "step", 8],
    ]  # fmt: skip
    values = [["p@a+0", 0.5], ["p@b+0", 0.75]]
    solutions = [["p#0", "p@b+0", "1", True, "stop"], ["p#1", "p@d+9", None, False, "length"]]
    found = tree(expansions, values, solutions, {"prm/best_of_n": "p#0", "majority": None, "odd": "p#7"})
    assert found == {
        "texts": ["first", "peek", "second", "end", "deep", "y", "x"], "parents": [-1, 0, -1, 2, 2, 4, 4],
        "states": ["expanded", "ahead", "expanded", "finished", "expanded", "cut", "cut"], "tokens": [3, 6, 2, 5, 4, 8, 7],
        "values": [0.5, None, None, 0.75, None, None, None],
        "solutions": [[3, "p#0", "1", True], [5, "p#1", None, False]], "choices": {"prm/best_of_n": 3},
    }  # fmt: skip


def test_trees_of_real_searches(tmp_path):
    """Every expansion is a node; parents come first; a beam prunes, samples are leaves; lookahead is told apart."""
    strategies = {"n": BestOfN(4), "beam": BeamSearch(4, 2), "ahead": Lookahead(1, 4, 2)}
    results = {name: searched(tmp_path / name, one, 3)[0] for name, one in strategies.items()}
    searches = [read_search(name, tmp_path / name) for name in strategies]
    embedded = browse_report(tmp_path / "b.html", Sources(searches=searches), Describer(), 100)
    assert embedded.describe() == "3 problems, 9 search trees"
    _, data = read_page(tmp_path / "b.html")
    index = data["index"]
    assert (index["searches"], index["final_rule"]) == (["n", "beam", "ahead"], "best_of_n")
    solved = {
        name: {p: bool(r.curves["prm/best_of_n"][-1]) for p, r in found.items()} for name, found in results.items()
    }
    assert {problem["id"]: problem["searched"] for problem in index["problems"]} == {
        f"p/{i}": [sum(one[f"p/{i}"] for one in solved.values()), 3] for i in range(3)
    }
    assert sorted((problem["id"], problem["count"]) for problem in index["problems"]) == [
        (f"p/{i}", 0) for i in range(3)
    ]
    states = {name: set() for name in strategies}
    for number, problem in enumerate(index["problems"]):
        for name, grown in data[f"t{problem['trees']}"][str(number)].items():
            result = results[name][problem["id"]]
            assert len(grown["states"]) == result.num_expansions
            assert grown["tokens_sampled"] == sum(grown["tokens"]) == result.cost.generated_tokens
            assert all(parent < i for i, parent in enumerate(grown["parents"]))
            assert {grown["parents"][i] for i in range(len(grown["states"]))} - {-1} <= {
                i for i, state in enumerate(grown["states"]) if state in {"expanded", "ahead"}
            }
            ids = {one: node for node, one, _, _ in grown["solutions"]}
            assert grown["choices"] == {r: ids[c] for r, c in result.choices.items() if c}
            states[name] |= {*grown["states"]}
    assert states["n"] == {"finished"}
    assert states["beam"] == {"expanded", "pruned", "finished"}
    assert "ahead" in states["ahead"]


def test_trees_beyond_the_limit_are_said(tmp_path):
    """A limit of one solution is one of 8 prefixes: the first problem's 4 fit, the second's too, the third's do not."""
    searched(tmp_path / "n", BestOfN(4), 3)
    embedded = browse_report(tmp_path / "b.html", Sources(searches=[read_search("n", tmp_path / "n")]), Describer(), 1)
    assert embedded.describe() == "2 of 3 problems, 2 of 3 search trees"


def test_searches_without_expansions_are_said(tmp_path, capsys):
    """Only results may have been kept; a report of them has no page, or one without these trees."""
    searched(tmp_path / "n", BestOfN(4), 2)
    bare = flat(tmp_path / "bare", [1, 0], 7)
    report(output=tmp_path / "a", searches={"bare": bare}, num_bootstrap=10)
    assert "browse.html" not in capsys.readouterr().out
    assert not (tmp_path / "a/browse.html").exists()
    searches = [read_search("n", tmp_path / "n"), read_search("bare", bare)]
    embedded = browse_report(tmp_path / "b.html", Sources(searches=searches), Describer(), 9)
    assert embedded.describe() == "2 problems, 2 search trees, no trees of bare, which has no expansions/"


def test_how_many_searches_are_correct():
    """The first tree's best is incorrect though its vote is not; the second has no choice; the third is not graded."""
    trees = [
        {"solutions": [[0, "p#0", "2", False], [1, "p#1", "1", True]], "choices": {"prm/best_of_n": 0, "majority": 1}},
        {"solutions": [[0, "p#0", "1", True]], "choices": {}},
        {"solutions": [[0, "p#0", "1", None]], "choices": {"prm/best_of_n": 0, "majority": 0}},
    ]
    assert tally_answers(trees, "best_of_n") == (0, 1)
    assert tally_answers(trees, "majority") == (1, 1)
