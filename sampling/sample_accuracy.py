"""Validate a generator in training by its accuracy on held-out problems."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_warn

from sampling.engines import CalculatorEngine, Completion, Engine, LoadedEngine, SamplingOptions
from sampling.engines.prompts import Prompts
from sampling.labelling.outcomes import grade_solutions
from sampling.runtime.inputs import read_problems
from sampling.runtime.scheduler import run, run_all
from sampling.runtime.seeds import derive_seed
from stepverify.answers import Grader
from stepverify.modules import GeneratorModule
from stepverify.monitoring.media import show_table, shows
from stepverify.readers import Reader
from stepverify.records import InputError, Problem, Solution

_COLUMNS = ("problem_id", "problem", "solution", "predicted", "answer", "verdict")


class SampleAccuracy(lightning.Callback):
    """Sample and grade solutions of held-out problems after each validation.

    Logs ``val/sample_accuracy``, the share of solutions with the correct answer (pass@1 if they are sampled greedily),
    and ``val/sample_unfinished``, the share of solutions that were cut off or state no answer. Problems are divided
    over the ranks. The samples depend on ``seed`` and the weights alone, and training continues as if nothing had been
    sampled.

    Args:
        problems: held-out problems with answers. With 300 problems the standard error is at most 3 percentage points.
        num_samples: solutions per problem.
        sampling: temperature (greedy unless given), maximum length, stop texts.
        calculator: write the results of calculator annotations as :class:`sampling.engines.calculator.CalculatorEngine`
            does.
        every_n_epochs: sample only in the validations of every n-th epoch.
        batch_size: completions sampled at the same time on each device.
        num_texts: number of solutions that loggers show.
        seed: seed of the samples, the same in every validation.
    """

    logged = ("val/sample_accuracy", "val/sample_unfinished")

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
        """Read and check the problems before the model is loaded.

        Raises:
            InputError: not a generator, a problem without an answer, or a prompt that leaves no room for a completion.
        """
        if stage not in ("fit", "validate"):
            return
        if not isinstance(pl_module, GeneratorModule):
            raise InputError(
                f"SampleAccuracy: a {type(pl_module).__name__} samples no solutions; use the callback with a generator"
            )
        self._problems = read_problems(self.problems)
        limit = pl_module.encoder.max_length
        for problem in self._problems:
            if not problem.answer:
                raise InputError(f"SampleAccuracy.problems: {problem.id}: no answer, so its solutions cannot be graded")
            if (length := len(pl_module.encoder.prompt(problem.problem))) >= limit:
                raise InputError(
                    f"SampleAccuracy.problems: {problem.id}: the prompt has {length} tokens, max_length is {limit}"
                )
        examples = getattr(trainer.datamodule, "examples", {}).get("fit")  # type: ignore[attr-defined]
        if examples and (known := {p.id for p in self._problems}.intersection(examples.problems)):
            rank_zero_warn(f"SampleAccuracy.problems: {len(known)} of {len(self._problems)} are also training problems")

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Sample solutions, grade them and log their accuracy.

        The model is in evaluation mode here.
        """
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
        if shows(trainer):
            rows = [_row(solution) for solution in solutions[: self.num_texts]]
            texts = [f"{row[1]}\n\n{row[2]}\n({row[5]}; reference answer: {row[4]})" for row in rows]
            show_table(trainer, "sample", _COLUMNS, rows, texts)

    def _draw(self, trainer: lightning.Trainer, module: GeneratorModule, problems: list[Problem]) -> list[Solution]:
        network = _Network(trainer, module)
        engine: Engine = LoadedEngine(
            network, module.encoder.tokenizer, "in training", self.batch_size,
            inference_mode=not network.sharded, in_thread=False,
        )  # fmt: skip
        if self.calculator:
            engine = CalculatorEngine(engine)
        sampled: dict[str, list[Completion]] = {}
        prompts = Prompts(engine, module.template)
        options = prompts.options(self.sampling)

        async def sample(problem: Problem) -> None:
            seed = derive_seed(self.seed, problem.id)
            request = prompts.request(problem.id, problem.problem, self.num_samples, seed)
            sampled[problem.id] = await engine.complete(request, options)

        async def sample_all() -> None:
            # Entered in the thread that computes, since autocast belongs to a thread.
            with trainer.precision_plugin.val_step_context(), torch.compiler.set_stance("force_eager"):
                async with aclosing(engine):
                    await run_all(problems, sample, max_in_work=-(-engine.capacity // self.num_samples))
                network.wait()

        run(sample_all())
        return [prompts.solution(p, i, c) for p in problems for i, c in enumerate(sampled[p.id])]


class _Network:
    """Present the model in training as a transformers model.

    If the model is sharded, each forward pass gathers weights from all ranks, so all ranks must run the same number of
    passes. They agree before each pass, and a rank that has finished runs empty passes until all have finished.
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
        """Wait until all ranks have finished sampling."""
        nothing = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        while self.sharded and self._any_rank(False):
            with torch.no_grad():
                self.model.decode(input_ids=nothing, use_cache=False, logits_to_keep=1)

    def _any_rank(self, samples: bool) -> bool:
        vote = torch.tensor(int(samples), device=self.device)
        return bool(self.strategy.reduce(vote, reduce_op="sum"))


def _row(solution: Solution) -> tuple[str | None, ...]:
    verdict = "correct" if solution.correct else "unfinished" if solution.predicted is None else "incorrect"
    return solution.problem_id, solution.problem, solution.text, solution.predicted, solution.answer, verdict
