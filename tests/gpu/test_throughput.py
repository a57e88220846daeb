"""Training speed and memory of this project, a plain loop and TRL 1.13, by ``bench_train``'s own contestants.

A random model in the shape of SmolLM2-135M (134 million parameters, 9 heads, 3 of them for keys), the embedded problems,
16 solutions each, 256 a step; one run each, in processes of their own. Figures go into the report; what is asserted is
that everyone trained on the same data. Budget: 75 s.
"""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.peers import setup, work
from tests.gpu.work import patience

pytestmark = pytest.mark.gpu

PEERS = {"plain": "plain", "TRL PRMTrainer": "trl_trainers", "stepverify": "ours"}


@pytest.fixture(scope="module")
def material(device, tmp_path_factory):
    """Folders of model and data, and the number of steps; small ones in a dry run."""
    folder = tmp_path_factory.mktemp("throughput")
    shape, problems, steps = ({**setup.SMOLLM2}, 192, 12)
    if device == "cpu":
        shape, problems, steps = {"vocabulary": 512, "width": 128, "layers": 2, "heads": 4, "groups": 2}, 8, 3
    setup.tiny_model(str(folder / "model"), **shape)
    return str(folder / "model"), setup.write(folder / "data", list(setup.synthetic(problems, 16))), steps


@pytest.fixture(scope="module")
def ceiling(device):
    """Operations a second of a bfloat16 product."""
    return (setup.cuda_ceiling if device == "cuda" else setup.ceiling)()["bfloat16"]


@pytest.fixture(scope="module")
def rates():
    """Contestant → solutions a second, in the order of the runs."""
    return {}


@pytest.mark.seconds(100)
@pytest.mark.parametrize("name", PEERS)
def test_training_a_process_reward_model(name, material, ceiling, rates, device, record):
    model, data, steps = material
    python = setup.trl_python(None) if name.startswith("TRL") else sys.executable
    if python is None:
        pytest.skip("TRL is not installed: pip install trl==" + setup.TRL)
    spec = work.Spec("prm", model, data, steps, {}, device)
    try:
        command = [python, "-m", f"tests.benchmarks.peers.{PEERS[name]}", spec.dump()]
        said = setup.call(command, threads=4 if device == "cuda" else 1, device=device, seconds=patience(90))
    except SystemExit as failed:
        pytest.fail(str(failed)[-3000:])
    result = work.parse(said)
    rates[name] = rate = result["tokens"] / result["seconds"] / result["mean_length"]
    figures = {"solutions_per_second": rate, "tokens_per_second": result["tokens"] / result["seconds"]}
    figures |= {
        "mfu": result["flops"] / result["seconds"] / ceiling, "peak_gib": result["peak"] / 2**30,
        "computed_of_full_tokens": result["positions"] / result["tokens"], "step_seconds": result["seconds"] / (result["steps"] - 1),
    }  # fmt: skip
    figures |= {f"ratio_to_{other}": rate / rates[other] for other in rates if other != name}
    record(f"training, {name}", **figures)
    assert result["steps"] >= steps  # packs cannot always be divided into exactly so many
    assert round(result["per_step"] * result["steps"]) == len(work.Spec("prm", model, data, 1).examples)
    assert 0 < figures["mfu"] < 1
    assert result["peak"] > 12 * result["parameters"]  # weights, and Adam's two states
