"""What a scorer costs: objective, parameters, and the tokens that it reads for a solution."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from sampling.scorers import ExportedVerifier, PoolingVerifier, QwenPRM
from stepverify.prms import load_prm
from stepverify.records import Solution
from tests.helpers import prms
from tests.helpers.exports import EMPTY, LONG, SOLUTIONS


def test_tokens_and_parameters_of_exports(outcome, process):
    """The prompt ``a = 0 ; b = a + 1 ; b ?`` has 13 tokens with its line end, ``b = 0 + 1 = 1`` has 8, ``#### 1`` has 3.

    A process reward model reads a step tag after each step, an outcome verifier the end of the sequence, unless the
    solution was cut off. Its value head has 64 weights and a bias.
    """
    orm, prm = ExportedVerifier(outcome), ExportedVerifier(process)
    assert (orm.objective, prm.objective) == ("outcome", "process")
    assert (orm.num_parameters, prm.num_parameters) == (163_008 + 65, 163_008)
    assert orm.count_tokens(SOLUTIONS[0]) == 13 + 8 + 3 + 1
    assert prm.count_tokens(SOLUTIONS[0]) == 13 + 8 + 1 + 3 + 1
    assert orm.count_tokens(SOLUTIONS[3]) == 13 + 6
    for scorer in (orm, prm):
        assert [scorer.count_tokens(s) for s in (LONG, EMPTY)] == [0, 0]


def test_a_pooling_runner_counts_as_the_model_itself(outcome):
    pooling, plain = PoolingVerifier(outcome), ExportedVerifier(outcome)
    assert pooling.objective == "outcome"
    assert pooling.num_parameters == plain.num_parameters
    assert [pooling.count_tokens(s) for s in SOLUTIONS] == [plain.count_tokens(s) for s in SOLUTIONS]


@pytest.mark.parametrize("made", [lambda prm: prm, lambda prm: PoolingVerifier(prm=prm)])
def test_a_released_model_is_a_process_reward_model(made, tmp_path):
    """Reading ends with the final step's tag."""
    prm = QwenPRM(prms.write("QwenPRM", tmp_path / "m"))
    scorer, loaded = made(prm), load_prm("QwenPRM", prm.path, device="cpu")
    asked = Solution(id="p#0", problem_id="p", problem=prms.PROBLEM, steps=prms.STEPS, finish="stop")
    assert scorer.objective == "process"
    assert scorer.count_tokens(asked) == loaded.encoder.process(asked, None).positions[-1] + 1 == 166
    stored = [load_file(file) for file in Path(prm.path).glob("*.safetensors")]
    assert scorer.num_parameters == sum(tensor.numel() for tensors in stored for tensor in tensors.values())
