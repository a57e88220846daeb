"""A neutral label of its own: trained among three, exported, and added to a step's value or not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from sampling.scorers import ExportedVerifier  # noqa: E402
from sampling.stages.score import score  # noqa: E402
from stepverify.data.batch import collate  # noqa: E402
from stepverify.data.encode import SolutionEncoder, load_tokenizer  # noqa: E402
from stepverify.data.targets import NEUTRAL, StepTargets  # noqa: E402
from stepverify.jsonl import read_records, write_records  # noqa: E402
from stepverify.losses import StepCrossEntropy  # noqa: E402
from stepverify.models import Backbone, ProcessModel, load_verifier  # noqa: E402
from stepverify.modules import ProcessRewardModel  # noqa: E402
from stepverify.records import InputError, Solution, StepLabel  # noqa: E402
from stepverify.template import Template, load_export  # noqa: E402
from stepverify.verifier import Verifier  # noqa: E402
from tests.helpers.cards import run_card  # noqa: E402
from tests.helpers.fits import fit  # noqa: E402
from tests.helpers.losses import lost  # noqa: E402

TEMPLATE = Template(prompt="{problem}\n", neutral="*")
RATINGS = (-1, 1, 0)


def rated(number):
    """Three steps, rated 1, 0 and -1 from the ``number``-th on, in turn; a step shows its rating."""
    ratings = [RATINGS[(number + i) % 3] for i in range(3)]
    return Solution(
        id=f"p{number}#0", problem_id=f"p{number}", problem="a ?", answer="1", correct=False,
        steps=[{1: "a = 1", 0: "b = 2", -1: "c = 3"}[r] for r in ratings], step_labels=[StepLabel(rating=r) for r in ratings],
    )  # fmt: skip


def test_layout_and_ids(tokenizer):
    """Classes 0, 1, 2; without a neutral label the file of an export is what it was."""
    encoder = SolutionEncoder(tokenizer, TEMPLATE)
    ids = encoder.judging_ids()
    assert list(ids) == ["step_tag", "negative", "positive", "neutral"]
    assert encoder.label_ids == (ids["negative"], ids["positive"], ids["neutral"])
    assert SolutionEncoder(tokenizer, Template()).label_ids == encoder.label_ids[:2]
    with pytest.raises(InputError, match="neutral is the same token '-' as another label"):
        Template(neutral="-")
    with pytest.raises(InputError, match=r"^template.neutral: 'a b' is 2 tokens"):
        _ = SolutionEncoder(tokenizer, Template(neutral="a b")).label_ids
    with pytest.raises(InputError, match="need 4 different tokens"):
        _ = SolutionEncoder(tokenizer, Template(neutral="<step>")).label_ids


def test_a_neutral_target_is_no_error():
    labels = [StepLabel(rating=r) for r in (1, 0, -1, 0)]
    assert StepTargets(neutral="class")(labels) == [1.0, NEUTRAL, 0.0, NEUTRAL]
    assert StepTargets(neutral="class", after_first_error="ignore")(labels) == [1.0, NEUTRAL, 0.0, None]


def test_cross_entropy_among_three_by_hand():
    """Softmax of (0, ln 2, ln 5) is (1/8, 1/4, 5/8). Targets 1, 0, neutral and 1/2: -ln 1/4, -ln 1/8, -ln 5/8, and the mean
    of the first two. The gradient of the neutral one is p minus (0, 0, 1)."""
    row = [0.0, math.log(2), math.log(5)]
    logits = torch.tensor([row] * 4, requires_grad=True)
    total, count = lost(StepCrossEntropy(), logits, torch.tensor([1.0, 0.0, NEUTRAL, 0.5]))
    wanted = -math.log(1 / 4) - math.log(1 / 8) - math.log(5 / 8) - (math.log(1 / 4) + math.log(1 / 8)) / 2
    assert (total.item(), count.item()) == (pytest.approx(wanted, rel=1e-5), 4.0)
    total.backward()
    assert logits.grad[2].tolist() == pytest.approx([1 / 8, 1 / 4, -3 / 8], abs=1e-6)


@pytest.mark.parametrize(("neutral", "value"), [("positive", 7 / 8), ("negative", 1 / 4)])
def test_what_a_value_counts(neutral, value, base, tokenizer):
    """P(+) = 1/4, and P(neutral) = 5/8 with it; never above 1, where P(-) rounds to nothing."""
    encoder = SolutionEncoder(tokenizer, TEMPLATE)
    model = ProcessModel(Backbone(path=str(base), weights="random").load(), encoder.label_ids, neutral=neutral)
    assert model.labels == ("incorrect", "correct", "neutral")
    assert model.values(torch.tensor([[0.0, math.log(2), math.log(5)]])).item() == pytest.approx(value)
    assert model.values(torch.randn(1000, 3) * 9 - torch.tensor([200.0, 0.0, 0.0])).max() <= 1


@pytest.mark.parametrize(("neutral", "wanted"), [("positive", [1.0, 1.0, 0.0]), ("negative", [1.0, 0.0, 0.0])])
def test_metrics_judge_a_neutral_step_as_its_value(neutral, wanted, base):
    module = ProcessRewardModel(
        Backbone(path=str(base), weights="random"), TEMPLATE, targets=StepTargets(neutral="class"), neutral=neutral
    )
    assert module.truth(torch.tensor([1.0, NEUTRAL, 0.0])).tolist() == wanted
    with pytest.raises(InputError, match=r"targets.neutral: class, but template.neutral defines no token"):
        ProcessRewardModel(Backbone(path=str(base), weights="random"), Template(), targets=StepTargets(neutral="class"))


@pytest.fixture(scope="module")
def trained(one_layer_dir, tmp_path_factory):
    """Sixty steps on solutions with all three ratings, neutral counted as negative."""
    root = tmp_path_factory.mktemp("neutral")
    write_records(root / "data" / "part-00000.jsonl", [rated(i) for i in range(480)])
    options = {
        "template": {"prompt": "{problem}\n", "neutral": "*"}, "targets": {"neutral": "class"}, "neutral": "negative",
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-3}},
    }  # fmt: skip
    return fit(root / "run", "ProcessRewardModel", root / "data", {"path": str(one_layer_dir)}, model=options)


def test_the_three_classes_are_learned(trained):
    """Steps that show their rating: the class of each has most of the probability."""
    model, encoder, _ = load_verifier(str(trained))
    with torch.inference_mode():
        logits = model(collate([encoder.process(s := rated(0), None)]))[0]
    assert logits.argmax(-1).tolist() == [{-1: 0, 1: 1, 0: 2}[label.rating] for label in s.step_labels]


def test_the_choice_travels_with_the_export_and_scoring_may_make_another(trained, tmp_path):
    template, facts = load_export(trained)
    assert (template, facts["neutral"], len(facts["ids"])) == (TEMPLATE, "negative", 4)
    solutions = [rated(i) for i in range(3)]
    own, strict, lenient = (
        Verifier.from_pretrained(trained, device="cpu", neutral=how).score_solutions(solutions)
        for how in (None, "negative", "positive")
    )
    assert own == strict
    for s, low, high in zip(solutions, strict, lenient, strict=True):
        for label, a, b in zip(s.step_labels, low, high, strict=True):
            assert b > a
            assert (b - a > 0.5) == (label.rating == 0), "the difference is P(neutral)"
    again = Verifier.from_pretrained(trained / "classifier", device="cpu").score_solutions(solutions)
    assert again == [pytest.approx(values, abs=1e-5) for values in own]
    write_records(tmp_path / "in.jsonl", solutions)
    verifiers = {"prm": str(trained), "lenient": ExportedVerifier(str(trained), neutral="positive")}
    score(tmp_path / "in.jsonl", tmp_path / "o", verifiers)
    assert [s.scores for s in read_records(tmp_path / "o", Solution)] == [
        {"prm": a, "lenient": b} for a, b in zip(own, lenient, strict=True)
    ]


def test_a_module_goes_on_with_the_exports_choice(trained):
    source = Backbone(path=str(trained))
    assert ProcessRewardModel(source).neutral == "negative"
    assert ProcessRewardModel(source).template == TEMPLATE
    assert ProcessRewardModel(source, neutral="positive").neutral == "positive"


def test_each_form_and_its_card_say_the_same(trained, monkeypatch):
    """The causal model's three logits and the three-label classifier's, by the cards' own code."""
    config = json.loads((trained / "classifier" / "config.json").read_text())
    assert config["id2label"] == {"0": "incorrect", "1": "correct", "2": "neutral"}
    asked = Solution(id="p#0", problem_id="p", problem="What is 2 + 3?", steps=["2 + 3 = 5", "#### 5"])
    (wanted,) = Verifier.from_pretrained(trained, device="cpu").score_solutions([asked])
    for folder in (trained, trained / "classifier"):
        assert run_card(folder, monkeypatch)["scores"] == pytest.approx(wanted, abs=1e-5)
        assert '| neutral | `"*"` |' in (folder / "README.md").read_text()


def test_neutral_of_a_verifier_without_such_a_label(trained, base, tmp_path: Path):
    tokenizer = load_tokenizer(str(base))
    encoder = SolutionEncoder(tokenizer, Template())
    model = ProcessModel(Backbone(path=str(base), weights="random").load(), encoder.label_ids)
    model.export(tmp_path / "two", model.state_dict())
    tokenizer.save_pretrained(tmp_path / "two")
    Template().save(tmp_path / "two", objective="process", ids=encoder.judging_ids())
    with pytest.raises(InputError, match="two: neutral: negative: it has no neutral label"):
        load_verifier(str(tmp_path / "two"), neutral="negative")
    model.export(tmp_path / "c", model.state_dict(), "classifier")
    classifier = Backbone(path=str(tmp_path / "c")).load()
    with pytest.raises(InputError, match="2 labels is no process reward model with 3 labels"):
        ProcessModel(classifier, (1, 2, 3))
