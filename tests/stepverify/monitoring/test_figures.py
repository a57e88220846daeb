from types import SimpleNamespace

import pytest
import torch
from torchmetrics.functional.classification import binary_precision_recall_curve
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepverify.data.encode import SolutionEncoder
from stepverify.monitoring.figures import precision_recall_figure
from stepverify.monitoring.solutions import SolutionText, _after_steps, token_figure
from stepverify.records import Solution
from stepverify.template import Template


def test_the_value_after_a_step_is_that_of_its_last_token():
    """Tokens that bring a line end do not tell steps apart: the first step has two lines."""
    visible = [("a\n", 0.1), ("b", 0.2), ("\n", 0.3), ("c", 0.4), ("\n", 0.5), ("<eos>", 0.6)]
    assert _after_steps(visible, ["a\nb\n", "c\n"]) == [0.3, 0.5]


def test_token_figure_puts_every_text_on_its_colour():
    figure = token_figure([("$1", 0.5), (" <b>", 1.0), ("\n", 0.9), ("€", 0.0), ("x" * 9, 0.2)], width=8)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["$1", " <b>", "↵", "▼€", "x" * 9]
    assert [patch.get_y() + 0.45 for patch in axes.patches] == [0, 0, 0, 1, 2], "a line end, then too little room"
    colours = [patch.get_facecolor()[:3] for patch in axes.patches]
    assert colours[0] == (1.0, 1.0, 1.0) or min(colours[0]) > 0.98
    assert colours[1][2] > colours[1][0], "correct is blue"
    assert colours[3][0] > colours[3][2], "incorrect is orange"
    figure.canvas.draw()


def test_the_point_at_one_half_is_that_of_the_metric():
    """P(correct) of incorrect steps 0.1, 0.5, 0.8, of correct ones 0.3, 0.5, 0.9. Below 1/2 are 0.1 and 0.3: precision 1/2, recall
    1/3, F1 2/5; a value of 1/2 is not called incorrect. Calling all incorrect, half are."""
    values, incorrect = torch.tensor([0.1, 0.5, 0.8, 0.3, 0.5, 0.9]), torch.tensor([1, 1, 1, 0, 0, 0])
    axes = precision_recall_figure(*binary_precision_recall_curve(1 - values, incorrect)).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[pytest.approx(1 / 3), pytest.approx(1 / 2)]]
    assert {text.get_text() for text in axes.figure.legends[0].get_texts()} == {
        "value below 1/2: F1 0.40", "all predicted incorrect: 0.50",
    }  # fmt: skip


def test_without_a_step_below_one_half_the_curve_has_no_point():
    curve = binary_precision_recall_curve(1 - torch.tensor([0.6, 0.9]), torch.tensor([1, 0]))
    assert not precision_recall_figure(*curve).axes[0].collections


def test_solutions_are_written_together_as_they_are_alone(one_layer_dir):
    """Problems of unlike length, in one batch."""
    tokenizer = AutoTokenizer.from_pretrained(one_layer_dir)
    module = SimpleNamespace(
        model=AutoModelForCausalLM.from_pretrained(one_layer_dir).float().eval(), device=torch.device("cpu"),
        encoder=SolutionEncoder(tokenizer, Template(prompt="{problem}\n")),
    )  # fmt: skip
    records = [Solution(id=p, problem_id=p, problem=p, steps=[], answer="7") for p in ("1 + 2 = ?", "Add 3, then 4.")]
    written = SolutionText(max_tokens=8)
    together = written._generated(module, records)
    assert together == [written._generated(module, [record])[0] for record in records]
