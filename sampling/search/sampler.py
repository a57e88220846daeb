"""Sample expansions from an engine, score them, and keep them on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from sampling.engines import Completion, Engine, Request, SamplingOptions
from sampling.engines.prompts import Prompts
from sampling.runtime.scheduler import PriorityLimit, together
from sampling.runtime.seeds import derive_seed
from sampling.scorers import Scorer
from sampling.search.costs import Pricing
from sampling.search.memory import Memory
from sampling.search.records import Expansion, Values
from sampling.search.tree import How, Node, Tree
from stepverify.aggregate import Aggregation
from stepverify.records import InputError, Problem, Solution
from stepverify.steps import in_block, stop_texts

_MARKS: dict[How, str] = {"step": "", "end": "w", "greedy": "g"}
Ended = Literal["step", "stop", "length"]


@dataclass(slots=True)
class _Draft:
    """Hold a continuation while it is sampled: all tokens and text of the solution so far."""

    token_ids: tuple[int, ...] | None
    sampled: str
    num_tokens: int
    num_calculator_edits: int = 0


class Sampler:
    """Sample, score and keep the expansions of many problems.

    What was sampled or scored is on disk before it is used, and is not asked for again.

    Args:
        engine: the engine that samples.
        scorer: the verifier of prefixes and solutions.
        prompts: makes the requests.
        sampling: temperature, the largest length of a *solution*, and texts that end one.
        memory: the expansions and values that there are, and writers of further ones.
        aggregation: how values become the score of a node.
        seed: of the run.
        pricing: what tokens cost.

    Attributes:
        num_refused: completions that a server refused, which have no node.
        num_unscored: nodes that are too long for the verifier.
    """

    def __init__(
        self, engine: Engine, scorer: Scorer, prompts: Prompts, sampling: SamplingOptions, memory: Memory,
        aggregation: Aggregation, seed: int, pricing: Pricing,
    ) -> None:  # fmt: skip
        self.engine, self.scorer, self.prompts, self.memory = engine, scorer, prompts, memory
        self.aggregation, self.seed, self.pricing = aggregation, seed, pricing
        self.num_refused = self.num_unscored = 0
        self._sampling = prompts.options(sampling)
        self._separators = stop_texts(prompts.template.step_separator)
        self._limit = PriorityLimit(engine.capacity)

    async def sample(self, tree: Tree, node: Node, first: int, number: int, how: How) -> list[Node]:
        """Return the continuations of a node from ``first`` on; those that are known are not sampled again."""
        start = derive_seed(self.seed, tree.problem.id, *node.steps)
        seeds = {f"{tree.problem.id}@{start:x}{_MARKS[how]}+{i}": start + i for i in range(first, first + number)}
        expansions = self.memory.expansions
        await expansions.copy(seeds)
        missing = [(i, key) for i, key in enumerate(seeds) if key not in expansions]
        gaps = [
            [key for _, (_, key) in gap] for _, gap in groupby(enumerate(missing), lambda pair: pair[0] - pair[1][0])
        ]
        await together(self._ask(tree, node, gap, seeds[gap[0]], how) for gap in gaps)
        return [self._node(node, record) for key in seeds if (record := expansions.take(key)) is not None]

    async def _ask(self, tree: Tree, node: Node, keys: Sequence[str], seed: int, how: How) -> None:
        """Sample consecutive continuations of a node, which wait to be written then."""
        draft = _Draft(node.token_ids, node.sampled, node.num_tokens, node.num_calculator_edits)
        request, options = self._request(tree.problem, keys[0], draft, len(keys), seed, how)
        async with self._limit.hold(len(keys), (tree.order, node.depth)):
            completions = await self.engine.complete(request, options)
            if len(completions) != len(keys):
                raise InputError(
                    f"{self.engine.model}: {keys[0]}: {len(keys)} completions were asked for, the engine returned "
                    f"{len(completions)}"
                )
            ended, going_on = list[Expansion](), list[Coroutine[Any, Any, None]]()
            for i, (key, completion) in enumerate(zip(keys, completions, strict=True)):
                if completion.finish == "refused":
                    self.num_refused += 1
                    continue
                grown = self._joined(draft, completion, how)
                record = self._record(tree.problem, node, key, seed + i, draft, grown, completion, how)
                if record is None:
                    going_on.append(self._grow(tree.problem, node, key, seed + i, grown, how))
                else:
                    ended.append(record)
            await together([self.memory.expansions.add(ended), *going_on])

    async def _grow(self, problem: Problem, node: Node, key: str, seed: int, draft: _Draft, how: How) -> None:
        """Continue until there is a whole step, since a separator may stand in a block or after nothing."""
        record: Expansion | None = None
        while record is None:
            request, options = self._request(
                problem, f"{key}+{draft.num_tokens}", draft, 1, derive_seed(seed, draft.num_tokens), how
            )
            (completion,) = await self.engine.complete(request, options)
            if completion.finish == "refused":
                self.num_refused += 1
                return
            before, draft = draft, self._joined(draft, completion, how)
            record = self._record(problem, node, key, seed, before, draft, completion, how)
        await self.memory.expansions.add([record])

    def _record(
        self, problem: Problem, node: Node, key: str, seed: int, before: _Draft, draft: _Draft, completion: Completion,
        how: How,
    ) -> Expansion | None:  # fmt: skip
        """Return a continuation that has ended with a completion; None where its step goes on."""
        if (ended := self._ended(node, draft, len(before.sampled), completion, how)) is None:
            return None
        ids = None if draft.token_ids is None else [*draft.token_ids[len(node.token_ids or ()) :]]
        return Expansion(
            id=key, problem_id=problem.id, parent=node.id, seed=seed, text=draft.sampled[len(node.sampled) :],
            finish=ended, tokens=draft.num_tokens - node.num_tokens, token_ids=ids,
            num_calculator_edits=draft.num_calculator_edits - node.num_calculator_edits,
        )  # fmt: skip

    def _request(
        self, problem: Problem, key: str, draft: _Draft, n: int, seed: int, how: How
    ) -> tuple[Request, SamplingOptions]:  # fmt: skip
        options = dataclasses.replace(self._sampling, max_tokens=self._sampling.max_tokens - draft.num_tokens)
        if how != "end":
            options = dataclasses.replace(options, stop=[*options.stop, *self._separators])
        if how == "greedy":
            options = dataclasses.replace(options, temperature=0.0, top_p=1.0, top_k=0)
        request = self.prompts.request(key, problem.problem, n, seed)
        return self.prompts.continued(request, draft.token_ids, draft.sampled), options

    def _joined(self, draft: _Draft, completion: Completion, how: How) -> _Draft:
        """Return the solution so far with a completion."""
        edits = draft.num_calculator_edits + completion.num_calculator_edits
        encoder = self.prompts.encoder
        if encoder is None or completion.token_ids is None or draft.token_ids is None:
            stop = completion.stopped_by
            if stop is None and completion.finish == "stop" and completion.text and how != "end":
                stop = self._separators[0]  # the server does not say: where the solution has ended, nothing follows
            sampled = draft.sampled + completion.text + (stop or "")
            return _Draft(None, sampled, draft.num_tokens + completion.num_tokens, edits)
        ids = (*draft.token_ids, *completion.token_ids)
        shown = ids[:-1] if completion.finish == "stop" and ids and ids[-1] in self._sampling.stop_ids else ids
        sampled = encoder.tokenizer.decode(shown, skip_special_tokens=True)
        return _Draft(ids, sampled, len(ids), edits)

    def _ended(self, node: Node, draft: _Draft, begun: int, completion: Completion, how: How) -> Ended | None:
        """Tell how a continuation has ended; None where its step goes on."""
        if self._cut(node, draft.sampled, self._sampling.stop) is not None:
            return "stop"
        if completion.finish == "length" or draft.num_tokens >= self._sampling.max_tokens:
            return "length"
        if how == "end" or not any(stop in draft.sampled[begun:] for stop in self._separators):
            return "stop"
        text, separator = self._text(node, draft.sampled, "step"), self.prompts.template.step_separator
        whole = len(self.prompts.template.split(text)) > len(node.steps) and not in_block(text, separator)
        return "step" if whole else None

    def _cut(self, node: Node, sampled: str, stops: Sequence[str]) -> int | None:
        """Return where the first of some texts begins; it may begin in what was sampled before."""
        found = [sampled.find(stop, max(0, len(node.sampled) - len(stop) + 1)) for stop in stops]
        return min((at for at in found if at >= 0), default=None)

    def _text(self, node: Node, sampled: str, finish: Ended) -> str:
        """Return a solution without the text that ended it."""
        if finish == "step":
            ends = [sampled.rfind(stop, len(node.sampled)) for stop in self._separators]
            return sampled[: max(ends)] if max(ends) >= 0 else sampled
        at = self._cut(node, sampled, self._sampling.stop) if finish == "stop" else None
        return sampled if at is None else sampled[:at]

    def _node(self, node: Node, record: Expansion) -> Node:
        sampled = node.sampled + record.text
        text = self._text(node, sampled, record.finish)
        ids = None if record.token_ids is None or node.token_ids is None else (*node.token_ids, *record.token_ids)
        return Node(
            record.id, node, text, sampled, ids, node.num_tokens + record.tokens,
            tuple(self.prompts.template.split(text)), None if record.finish == "step" else record.finish,
            num_calculator_edits=node.num_calculator_edits + record.num_calculator_edits,
        )  # fmt: skip

    async def score(self, problem: Problem, nodes: Sequence[Node]) -> None:
        """Set the verifier's values of nodes; empty for those that are too long."""
        known = self.memory.values
        await known.copy(node.id for node in nodes)
        missing = [node for node in nodes if node.id not in known]
        asked = [self.solution(problem, i, node) for i, node in enumerate(missing)]
        found = await self.scorer.score(asked)
        if len(found) != len(missing):
            raise InputError(f"the verifier scored {len(found)} of {len(missing)} solutions of {problem.id}")
        await known.add(
            Values(id=node.id, values=values, tokens=self.scorer.sampled_tokens(solution))
            for node, solution, values in zip(missing, asked, found, strict=True)
        )
        for node in nodes:
            record = known.take(node.id)
            node.values = record.values if record is not None else []
            if record is not None and record.tokens:
                self.scorer.recall(self.solution(problem, 0, node), record.tokens)
            self.num_unscored += not node.values

    def solution(self, problem: Problem, index: int, node: Node) -> Solution:
        """Return a node as a solution."""
        return Solution.of(
            problem, index, [*node.steps], step_separator=self.prompts.template.joint,
            token_ids=None if node.token_ids is None else [*node.token_ids], finish=node.finish or "length",
            generator=self.engine.model.rstrip("/").rpartition("/")[2], num_calculator_edits=node.num_calculator_edits,
        )  # fmt: skip
