"""Label steps by rollouts: completions of step prefixes, kept on disk.

Every completion is graded and recorded in ``rollouts/`` of the stage's folder before it counts. A run that continues
after a kill asks the strategy the same questions again, and asks the engine only for completions without a record.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from sampling.engines import Engine, SamplingOptions
from sampling.engines.prompts import template_of
from sampling.labelling.answer_fallback import Unstated
from sampling.labelling.base import LabelProblem, Stage, StepLabeller
from sampling.labelling.run import Budget, Plan, Run
from sampling.labelling.strategies import Exhaustive, Strategy
from sampling.labelling.timeouts import Timeouts, count_rollouts
from sampling.runtime.provenance import check_origin, digest
from sampling.runtime.reuse import check_sampled, read_sampled
from sampling.runtime.store import Store
from stepverify.keys import KeySet
from stepverify.readers import Reader
from stepverify.records import InputError, Rollout
from stepverify.template import Template


class Rollouts(StepLabeller):
    """Label steps by completing every distinct step prefix.

    This is Math-Shepherd's method (Wang et al. 2023, section 3.3). The step that states the final answer is labelled by
    grading that answer, not by rollouts. A completion without an answer, or cut off at the token limit, counts as
    incorrect. A prefix that a server refuses to complete, if its engine skips those, is no evidence, and is counted.

    **Reuse.** A sampled solution is itself a completion of each of its prefixes, and a completion of a prefix is also
    one of every longer prefix in the tree that it passes through: all completions of a prefix have the same
    distribution. So with ``reuse_samples`` and ``reuse_rollouts`` the counts are pooled. Correct / total is then
    unbiased as long as neither the solutions nor the numbers of completions were chosen by outcomes. This holds for
    :class:`~sampling.labelling.Exhaustive` on all samples of a problem. It does not hold for samples that were kept
    because they are incorrect, or for a strategy that stops on outcomes. Completions of a longer prefix never count for
    a shorter one, since they are no unbiased sample of its completions. A label that includes its own solution's
    outcome is biased towards an outcome label, which matters if there are few samples per prefix.

    Args:
        engine: the engine that completes: that of the generator itself, or of another model.
        strategy: which prefixes are completed, how often, and when to stop.
        sampling: temperature, maximum length, stop texts.
        template: text around problems and steps; None takes the one that the model was exported with.
        few_shot: worked problems in front of every prompt: the ones that the solutions were sampled with.
        max_solutions: label only this many solutions of each problem, the first ones; None labels all.
        reuse_samples: count the solutions themselves. They must have been sampled by this engine, with these options.
        reuse_rollouts: count a completion for the longer prefixes that it passes through.
        reuse_from: outputs of other runs of this stage, finished or not, for example with another strategy. Their
            completions are copied. Engine, options and seed must be the same. Groups of completions that are larger
            than this strategy asks for are not reused.
        budget: limits of rollouts, tokens and time.
        seed: seed of the run. The seed of a prefix's completion i derives from this, the problem's id, the prefix and
            i, whatever the strategy.
    """

    def __init__(
        self, engine: Engine, strategy: Strategy = Exhaustive(),  # noqa: B008 - frozen
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
        template: Template | None = None, few_shot: Reader | None = None, max_solutions: int | None = None,
        reuse_samples: bool = False, reuse_rollouts: bool = False, reuse_from: Sequence[Path] = (),
        budget: Budget = Budget(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> None:  # fmt: skip
        if max_solutions is not None and max_solutions < 1:
            raise InputError(f"max_solutions: expected >= 1 or null, got {max_solutions}")
        self.engine, self.sampling = engine, sampling
        self.examples = list(few_shot.problems()) if few_shot else []
        self.plan = Plan(
            strategy, template_of(engine, template), self.examples, max_solutions, reuse_samples, reuse_rollouts,
            budget, seed,
        )  # fmt: skip
        self.reuse_from = [folder / "rollouts" for folder in reuse_from]
        self._summary: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        """Return engine, strategy and settings that decide the labels."""
        made = {"labeller": "rollouts", "engine": self.engine.identity(), "sampling": dataclasses.asdict(self.sampling)}
        decided = {"strategy": self.plan.strategy.identity(), "few_shot": digest(self.examples)}
        return made | dataclasses.asdict(self.plan) | decided

    @property
    def max_problems(self) -> int:
        """Return enough problems to keep the engine busy.

        In late rounds a problem asks for few completions.
        """
        return max(64, self.engine.capacity // 8)

    @asynccontextmanager
    async def labelling(self, stage: Stage) -> AsyncIterator[LabelProblem]:
        """Complete the prefixes of many problems while answers are graded.

        Raises:
            InputError: solutions or rollouts to reuse that were sampled in another way.
        """
        if self.plan.reuse_samples:
            check_origin(stage.input, self.identity(), self.examples)
        check_sampled(self.reuse_from, "rollouts", self.identity())
        before = {rollout.id: rollout for rollout in read_sampled(self.reuse_from, Rollout)}
        stage.progress.watch(self.engine)
        folder, config = stage.output / "rollouts", self.identity()
        with Store(folder, Rollout, stage="rollouts", config=config, inputs={}, may_be_empty=True) as store:
            stage.merged.copy(store, "rollouts")
            async with aclosing(self.engine), Run(self.plan, self.engine, self.sampling, stage, store, before) as run:
                yield run.label
            found, late = Unstated("rollouts"), Timeouts("rollouts", stage.grader.time_limit)
            self._summary = _count(count_rollouts(_watched(store.records(), found), late), before)
            if count := run.prefixes_refused + stage.merged.total("prefixes_refused"):
                self._summary["prefixes_refused"] = count
                print(f"{stage.output}: a server refused to complete {count} prefixes; these have no own rollouts")
            store.finish(self._summary)
            late.warn("they count as incorrect")
            found.warn(
                "they count as incorrect; give few_shot examples, or train the generator on solutions, with a final "
                "line such as '#### 5'"
            )

    def summary(self) -> dict[str, Any]:
        """Return the counts of completions, including those of earlier runs."""
        return self._summary


def _watched(rollouts: Iterable[Rollout], found: Unstated) -> Iterator[Rollout]:
    for rollout in rollouts:
        completions = zip(rollout.completions, rollout.finish, rollout.answers, strict=True)
        for i, (text, finish, answer) in enumerate(completions):
            found.add(text, stated=finish == "length" or answer is not None or i in rollout.timed_out)
        yield rollout


def _count(rollouts: Iterable[Rollout], before: Mapping[str, Rollout]) -> dict[str, int]:
    counts, prefixes = Counter[str](), KeySet()
    for rollout in rollouts:
        prefixes.add(rollout.id.rpartition("+")[0])
        if before.get(rollout.id) == rollout:
            counts.update(rollouts_reused=len(rollout.correct))
        counts.update(
            rollouts=len(rollout.correct), correct_rollouts=sum(rollout.correct), rollout_tokens=rollout.tokens,
            rollouts_without_answer=rollout.answers.count(None), rollouts_cut_off=rollout.finish.count("length"),
            rollout_timeouts=len(rollout.timed_out),
        )  # fmt: skip
    return {"prefixes_completed": len(prefixes), **counts}
