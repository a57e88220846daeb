"""What keeps replicas from starting, or from going on: one line each, before anything waits for ever."""

import asyncio
import pickle
import sys

import pytest

ray = pytest.importorskip("ray")

from sampling.engines import CalculatorEngine, RayEngine, Request, SamplingOptions, TransformersEngine  # noqa: E402
from sampling.runtime.ray_guard import check_reachable  # noqa: E402
from stepverify.records import InputError  # noqa: E402
from tests.helpers.replicas import SMALL, Noted, asked_of  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here")]

OPTIONS = SamplingOptions()


def test_replicas_that_never_answer_end_the_run(tmp_path, capfd):
    """Five die one after the other; then all that waits ends."""
    found, errors = asked_of(
        RayEngine(Noted(tmp_path, unable=True), 2, SMALL), [Request(f"{i}", [1], 1, 0) for i in range(9)]
    )
    assert not found
    messages = {str(error) for error in errors.values()}
    assert any("6 replicas died one after the other without an answer" in message for message in messages)
    assert "a replica died and is replaced" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 0}, "replicas: expected auto, or 1 or more, got 0"),
        (
            {"replicas": 3, "resources": {"num_cpus": 1e6}},
            r"replicas: 3 of Noted of noted \(each CPU 1e\+06\) do not fit into",
        ),
        ({"resources": {"tpu": 1}}, r"replicas: auto of Noted of noted \(each CPU 1, tpu 1\) do not fit into .*tpu 0"),
        (
            {"replicas": 1, "resources": {"num_gpus": 8}},
            r"replicas: 1 .*GPU 8.* do not fit into what Ray has \(.*GPU 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, tmp_path):
    with pytest.raises(InputError, match=f"^{message}"):
        RayEngine(Noted(tmp_path), **arguments).capacity  # noqa: B018


def test_a_cluster_that_is_not_there_is_refused_at_once():
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"):
        with pytest.raises(InputError, match=f"^address: {address}: no Ray cluster can be reached there"):
            check_reachable(address)


def test_replicas_for_which_there_is_no_room_end_the_run(tmp_path, monkeypatch):
    """Two take what the machine has; the scorer's beside them wait for it in vain."""
    share = {"num_cpus": ray.cluster_resources()["CPU"] / 2}
    first, second = (RayEngine(Noted(tmp_path), 2, share) for _ in range(2))

    async def main():
        await first.complete(Request("a", [1], 8, 0), OPTIONS)
        await first.complete(Request("b", [2], 8, 0), OPTIONS)
        monkeypatch.setattr("sampling.runtime.replicas._PLACED", 1.0)
        try:
            with pytest.raises(
                InputError, match=r"^Noted of noted: Ray had no room for a replica for 1 seconds; others"
            ):
                await second.complete(Request("b", [1], 1, 0), OPTIONS)
        finally:
            await first.aclose()
            await second.aclose()

    asyncio.run(main())


def test_without_ray_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"install stepverify\[ray\]"):
        RayEngine(Noted(tmp_path)).capacity  # noqa: B018


def test_arguments_go_to_the_actor_and_nothing_that_was_loaded(tiny_model_dir):
    """A copy for another process has no tokenizer, no model and a pump of its own."""
    engine = CalculatorEngine(TransformersEngine(str(tiny_model_dir), device="cpu", batch_size=3))
    assert engine.tokenizer is not None
    copy = pickle.loads(pickle.dumps(engine))
    assert "tokenizer" not in vars(copy.engine)
    assert (copy.engine.model, copy.engine.batch_size, copy.capacity) == (str(tiny_model_dir), 3, 24)
    assert copy.engine._pump is not engine.engine._pump
    assert copy.identity() == engine.identity()
