"""A generator in training is validated by what it is for: the share of held-out problems that it solves."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn

from sampling.engines import CalculatorEngine, Completion, Engine, LoadedEngine, Request, SamplingOptions
from sampling.labelling.outcomes import grade_solutions
from sampling.runtime.inputs import read_problems
from sampling.runtime.scheduler import run, run_all
from sampling.runtime.seeds import derive_seed
from stepverify.answers import Grader
from stepverify.callbacks.figures import block, text_writer
from stepverify.modules import GeneratorModule
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution


class SampleAccuracy(lightning.Callback):
    """Draws solutions of held-out problems after each validation, and grades them.

    Logs ``val/sample_accuracy``, the share of solutions that end in the correct answer (of greedy ones: pass@1), and
    ``val/sampling_unfinished``, the share that was cut off or states no answer. Problems are divided over the ranks.
    The draws depend on ``seed`` and the weights alone: training goes on as if nothing had been sampled.

    Args:
        problems: held-out problems with answers. Of 300, one standard error is 3 points at most.
        num_samples: solutions a problem.
        sampling: temperature (greedy unless given), length, stop texts.
        calculator: it writes the values of annotations, as in :class:`sampling.engines.calculator.CalculatorEngine`.
        every_n_epochs: draw in the validations of each so many epochs only.
        batch_size: completions sampled at the same time on each device.
        num_texts: how many solutions TensorBoard shows as text.
        seed: of the draws, the same in every validation.
    """

    logged = ("val/sample_accuracy", "val/sampling_unfinished")

    def __init__(
        self,
        problems: Reader,
        num_samples: int = 1,
        sampling: SamplingOptions = SamplingOptions(temperature=0.0),  # noqa: B008 - frozen
        calculator: bool = False,
        every_n_epochs: int = 1,
        batch_size: int = 64,
        num_texts: int = 4,
        seed: int = 0,
    ) -> None:
        for key, value in (
            ("num_samples", num_samples),
            ("every_n_epochs", every_n_epochs),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise InputError(f"SampleAccuracy.{key}: expected >= 1, got {value}")
        if sampling.temperature == 0 and num_samples > 1:
            raise InputError(
                f"SampleAccuracy.num_samples: {num_samples} greedy samples are the same; set sampling.temperature"
            )
        self.problems, self.num_samples, self.sampling = problems, num_samples, sampling
        self.calculator, self.every_n_epochs = calculator, every_n_epochs
        self.batch_size, self.num_texts, self.seed = batch_size, num_texts, seed
        self._problems: list[Problem] = []

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Read and check the problems before the model is loaded."""
        if stage not in ("fit", "validate"):
            return
        if not isinstance(pl_module, GeneratorModule):
            raise InputError(f"SampleAccuracy: a {type(pl_module).__name__} draws no solutions; it is for generators")
        self._problems = read_problems(self.problems)
        limit = pl_module.encoder.max_length
        for problem in self._problems:
            if not problem.answer:
                raise InputError(f"SampleAccuracy.problems: {problem.id}: no answer, its solutions cannot be graded")
            if (length := len(pl_module.encoder.prompt(problem.problem))) >= limit:
                raise InputError(
                    f"SampleAccuracy.problems: {problem.id}: the prompt has {length} tokens, max_length is {limit}"
                )
        examples = getattr(trainer.datamodule, "examples", {}).get("fit")  # type: ignore[attr-defined]
        if examples and (known := {p.id for p in self._problems}.intersection(examples.problems)):
            rank_zero_warn(f"SampleAccuracy.problems: {len(known)} of {len(self._problems)} are trained on too")

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw, grade, log. The model is in evaluation mode here."""
        assert isinstance(pl_module, GeneratorModule)
        fits = trainer.state.fn == "fit"
        if trainer.sanity_checking or (fits and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        ranks = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        solutions = self._draw(trainer, pl_module, self._problems[ranks["rank"] :: ranks["num_replicas"]])
        with Grader(num_workers=1) as grader:
            grade_solutions(solutions, grader)
        found = [sum(bool(s.correct) for s in solutions), sum(s.predicted is None for s in solutions), len(solutions)]
        counts = torch.tensor(found, device=pl_module.device)
        correct, unfinished, total = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        shares = (correct / total, unfinished / total)
        pl_module.log_dict(dict(zip(self.logged, shares, strict=True)), prog_bar=True, sync_dist=True, batch_size=1)
        if (writer := text_writer(trainer)) is not None:
            for i, solution in enumerate(solutions[: self.num_texts]):
                writer.add_text(f"sample/{i}", _shown(solution), trainer.global_step)

    def _draw(self, trainer: lightning.Trainer, module: GeneratorModule, problems: list[Problem]) -> list[Solution]:
        network = _Network(trainer, module)
        engine: Engine = LoadedEngine(
            network, module.encoder.tokenizer, "in training", self.batch_size,
            inference_mode=not network.sharded, in_thread=False,
        )  # fmt: skip
        if self.calculator:
            engine = CalculatorEngine(engine)
        sampled: dict[str, list[Completion]] = {}

        async def sample(problem: Problem) -> None:
            prompt = module.encoder.prompt(problem.problem)
            request = Request(problem.id, prompt, self.num_samples, derive_seed(self.seed, problem.id))
            sampled[problem.id] = await engine.complete(request, self.sampling)

        async def sample_all() -> None:
            # Entered in the thread that computes, for autocast belongs to a thread.
            with trainer.precision_plugin.val_step_context(), torch.compiler.set_stance("force_eager"):
                async with aclosing(engine):
                    await run_all(problems, sample, max_in_work=-(-engine.capacity // self.num_samples))
                network.wait()

        run(sample_all())
        return [
            Solution.of(p, i, module.template.split(c.text), token_ids=c.token_ids, finish=c.finish)
            for p in problems
            for i, c in enumerate(sampled[p.id])
        ]


class _Network:
    """The model in training, to be called as one of transformers.

    Where it is sharded, each forward gathers weights from all ranks, so all must run as many. The ranks agree before
    each one, and one that is done runs empty ones as long as another is not.
    """

    def __init__(self, trainer: lightning.Trainer, module: GeneratorModule) -> None:
        assert module.model is not None
        backbone: Any = module.model.backbone
        self.model, self.strategy, self.device = module.model, trainer.strategy, module.device
        self.config, self.generation_config = backbone.config, backbone.generation_config
        self.sharded = module.device_mesh is not None

    def __call__(self, **inputs: Any) -> Any:
        if self.sharded:
            self._any_rank(True)
        return self.model.decode(**inputs)

    def wait(self) -> None:
        """Until all ranks are done."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        while self.sharded and self._any_rank(False):
            with torch.no_grad():
                self.model.decode(input_ids=nothing, use_cache=False, logits_to_keep=1)

    def _any_rank(self, draws: bool) -> bool:
        vote = torch.tensor(int(draws), device=self.device)
        return bool(self.strategy.reduce(vote, reduce_op="sum"))


def _shown(solution: Solution) -> str:
    verdict = "correct" if solution.correct else "unfinished" if solution.predicted is None else "incorrect"
    text = "\n".join([solution.problem, "", *solution.steps])
    return block(f"{text}\n({verdict}; reference answer: {solution.answer})")
