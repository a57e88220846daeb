"""Encode records as token ids, scored positions and targets, without torch.

Ids are built segment by segment (prompt, each step, step tag), never by tokenizing the whole text: so no merge across a
border moves a label, and a shared prefix has the same ids in every solution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from stepverify.data.tokens import end_of_turn, single_token, start_ids
from stepverify.records import InputError, Problem, Solution
from stepverify.steps import heading
from stepverify.suggest import look_like_run, no_such
from stepverify.template import Template

_REMEMBERED = 1 << 16  # texts whose ids an encoder remembers


@dataclass(slots=True)
class Example:
    """Hold one encoded solution.

    Attributes:
        input_ids: T token ids.
        positions: M ascending indices into ``input_ids``, the scored positions.
        targets: M targets; None without labels (prediction).
        record: the solution that was encoded.
        lm_positions: indices whose next tokens the LM loss predicts; none by default.
        weights: weights of the M positions in the loss; None is 1 each.
        lm_weights: weights of ``lm_positions``; None is 1 each.
        denominator: what it adds to the loss denominator; None is the sum of ``weights``.
        reference: log-probabilities of the tokens at ``positions`` under a reference model; None if not known.
    """

    input_ids: list[int]
    positions: list[int]
    targets: list[float] | None
    record: Solution
    lm_positions: list[int] = field(default_factory=list)
    weights: list[float] | None = None
    lm_weights: list[float] | None = None
    denominator: float | None = None
    reference: list[float] | None = None

    def lm_targets(self) -> list[int]:
        """Return the tokens after ``lm_positions``."""
        return [self.input_ids[p + 1] for p in self.lm_positions]

    def weight(self) -> tuple[float, float]:
        """Return its contributions to the denominators of loss and LM loss."""
        own = float(len(self.positions)) if self.weights is None else sum(self.weights)
        return (
            own if self.denominator is None else self.denominator,
            float(len(self.lm_positions)) if self.lm_weights is None else sum(self.lm_weights),
        )


class LeftOut(Exception):
    """Signal a record that cannot be used; the message is the reason."""


class SolutionEncoder:
    """Encode problems and steps as token ids under one template and tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: the texts around problems and steps.
        max_length: longest sequence in tokens; a longer solution is left out as a whole, never cut.
        examples: worked problems before every prompt.

    Attributes:
        template: as given, with what the tokenizer's chat template writes.
        end_id: token after a complete solution: the chat template's end of turn, or else the end of the sequence.

    Raises:
        InputError: the tokenizer has no end of sequence, or its chat template cannot be used.
    """

    def __init__(
        self, tokenizer: Any, template: Template, max_length: int = 1024, examples: Sequence[Problem] = ()
    ) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length
        if tokenizer.eos_token_id is None:
            raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token")
        self.template = template.rendered_by(tokenizer)
        self._prompting, few_shot = self.template.with_examples(tokenizer, examples)
        self.end_id: int = tokenizer.eos_token_id
        if self.template.rendering is not None:
            self.end_id = end_of_turn(tokenizer, self.template.rendering.end)
        self._known: dict[str, tuple[int, ...]] = {}
        # A chat template writes BOS itself, if the model wants one.
        self._start = [*([] if template.chat else start_ids(tokenizer)), *(self._ids(few_shot) if few_shot else ())]
        # Where the prompt begins thinking, solutions stand after it.
        self._thought = self._ids(self.template.thought) if self.template.thought else ()

    def _ids(self, text: str) -> tuple[int, ...]:
        if (ids := self._known.get(text)) is None:
            ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
            self._remember({text: ids})
        return ids

    def _remember(self, found: Mapping[str, tuple[int, ...]]) -> None:
        if len(self._known) + len(found) > _REMEMBERED:
            self._known.clear()
        self._known.update(found)

    def read_ahead(self, records: Iterable[Solution]) -> None:
        """Tokenize the texts of at most some thousand solutions in one call: on all cores, and in less time."""
        wanted: dict[str, None] = {}
        for record in records:
            wanted[self.template.render_prompt(record.problem)] = None
            wanted.update(dict.fromkeys(map(self.template.render_step, record.steps)))
            wanted.update(dict.fromkeys(self.texts(record)[-1:]))
        if new := [text for text in wanted if text not in self._known]:
            found = self.tokenizer(new, add_special_tokens=False, return_attention_mask=False).input_ids
            self._remember(dict(zip(new, map(tuple, found), strict=True)))

    @cached_property
    def step_tag_id(self) -> int:
        """Return the id of the step tag."""
        return single_token(self.tokenizer, self.template.step_tag, "template.step_tag")

    @cached_property
    def label_ids(self) -> tuple[int, ...]:
        """Return the label ids: negative, positive and, if present, neutral."""
        return tuple(self.judging_ids()[name] for name in self.labels)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the labels in the order of their classes."""
        return ("negative", "positive") if self.template.neutral is None else ("negative", "positive", "neutral")

    def judging_ids(self) -> dict[str, int]:
        """Return the ids of the step tag and of each label."""
        ids = {"step_tag": self.step_tag_id}
        for name in self.labels:
            ids[name] = single_token(self.tokenizer, getattr(self.template, name), f"template.{name}")
        if len({*ids.values()}) < len(ids):
            raise InputError(f"template: step tag and labels need {len(ids)} different tokens, got ids {ids}")
        return ids

    def probe(self) -> list[int]:
        """Encode a fixed text, to compare the tokenizer with the training's."""
        return [*self.prompt("Ana's 1,234.5 + 6/7?"), *self.step("12 <<3*4=12>> = $12\u00bd"), self.end_id]

    def prompt(self, problem: str) -> list[int]:
        """Encode the text before a sampled text, with the examples."""
        return [*self._start, *self._ids(self._prompting.render_prompt(problem))]

    def step(self, step: str) -> list[int]:
        """Encode one step, its separator included."""
        return list(self._ids(self.template.render_step(step)))

    def texts(self, record: Solution) -> list[str]:
        """Return the text of each step of a solution, with what separates it from the next.

        In a chat a complete solution ends as models write it, with its final step.
        """
        texts = [self.template.render_step(step) for step in record.steps]
        if texts and self.template.chat and record.finish != "length":
            texts[-1] = record.steps[-1]
        return texts

    def token_texts(self, record: Solution) -> list[str]:
        """Return the text of each solution token, in the order of :meth:`outcome`.

        Joined, they are :meth:`texts`, and the token that ends a solution. A character of several tokens belongs to the
        last of them; the others are empty.
        """
        texts = [piece for text in self.texts(record) for piece in self._pieces(text)]
        return texts if record.finish == "length" else [*texts, self.tokenizer.convert_ids_to_tokens(self.end_id)]

    def _pieces(self, text: str) -> list[str]:
        spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        # Some tokenizers leave spaces out of their spans; text between two tokens belongs to the second one.
        ends = [min(end, following) for (_, end), (following, _) in pairwise(spans)] + [len(text)] * bool(spans)
        ends = list(accumulate(ends, max))
        return [text[a:b] for a, b in pairwise([0, *ends])]

    def path(self, problem: str, steps: Sequence[str]) -> list[int]:
        """Encode a problem and the steps so far; without steps, the :meth:`prompt`."""
        thought = self._thought if steps else ()
        return [*self.prompt(problem), *thought, *(i for step in steps for i in self.step(step))]

    def _solution(self, record: Solution) -> tuple[list[int], int]:
        """Encode prompt and solution (with its end unless cut off); return the length before the first step."""
        ids = [*self.prompt(record.problem), *self._thought]
        start = len(ids)
        for text in self.texts(record):
            ids += self._ids(text)
        if record.finish != "length":
            ids.append(self.end_id)
        return self._fitting(ids), start

    def _fitting(self, ids: list[int]) -> list[int]:
        if len(ids) > self.max_length:
            raise LeftOut(f"longer than max_length = {self.max_length} tokens")
        return ids

    def next_token(self, record: Solution) -> Example:
        """Encode for the generator: predict every solution token, with the prompt masked.

        Where the prompt begins thinking, its end is predicted too.
        """
        if not record.steps:
            raise LeftOut("without a worked solution")
        begins = heading(self.template.step_separator)
        if begins and not all(begins.match(step) for step in record.steps[1:]):
            raise LeftOut(f"without the heading {self.template.step_separator!r} in a step")
        ids, start = self._solution(record)
        start -= len(self._thought)
        return Example(ids[:-1], list(range(start - 1, len(ids) - 1)), [float(i) for i in ids[start:]], record)

    def lm(self, record: Solution) -> Example:
        """Encode for a joint LM loss: predict every solution token, without labels."""
        if not record.steps:
            raise LeftOut("without a worked solution")
        ids, start = self._solution(record)
        return Example(ids, [], [], record, list(range(start - 1, len(ids) - 1)))

    def outcome(self, record: Solution, targets: Sequence[float | None] | None, *, last_only: bool = False) -> Example:
        """Encode for the outcome verifier: score every solution token.

        Source: Cobbe et al. 2021, section 4.2.

        Args:
            record: the solution.
            targets: one target per step, for all of its tokens, None if unknown; or None to score every token without
                targets.
            last_only: score the final token only.
        """
        if not record.steps:
            raise LeftOut("without a step")
        ids, start = self._solution(record)
        positions = [len(ids) - 1] if last_only else list(range(start, len(ids)))
        if targets is None:
            return Example(ids, positions, None, record)
        along = [t for text, t in zip(self.texts(record), targets, strict=True) for _ in self._ids(text)]
        along += [targets[-1]] * (len(ids) - start - len(along))  # the end of the sequence
        read = [(at, target) for at in positions if (target := along[at - start]) is not None]
        if not read:
            raise LeftOut("without a known value")
        return Example(ids, [at for at, _ in read], [target for _, target in read], record)

    def process(self, record: Solution, targets: Sequence[float | None] | None) -> Example:
        """Encode for the process reward model: score every step tag.

        A step tag follows every step.

        Args:
            record: the solution.
            targets: one probability of being correct per step, None for unlabelled steps, which are not scored; or None
                to score all.
        """
        if not record.steps:
            raise LeftOut("without a step")
        ids, tags = [*self.prompt(record.problem), *self._thought], []
        for step in record.steps:
            ids += self.step(step)
            tags.append(len(ids))
            ids.append(self.step_tag_id)
        self._fitting(ids)
        if targets is None:
            return Example(ids, tags, None, record)
        read = [(at, target) for at, target in zip(tags, targets, strict=True) if target is not None]
        if not read:
            raise LeftOut("without a labelled step")
        return Example(ids, [at for at, _ in read], [target for _, target in read], record)


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a local model folder or Hub id.

    Raises:
        InputError: the folder is missing or has no tokenizer.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    loader: Any = AutoTokenizer
    folder = Path(path)
    if folder.is_dir():
        if not any((folder / f"tokenizer{end}").is_file() for end in (".json", "_config.json", ".model")):
            raise InputError(f"{path}: the model folder has no tokenizer (tokenizer.json){look_like_run(folder)}")
        if (folder / "tokenizer.json").is_file() and not trust_remote_code:
            # The file is complete. For some model types (Qwen2), AutoTokenizer of transformers 5 uses a class instead,
            # with another pre-tokenizer that would drop line ends and step tags of a custom vocabulary.
            loader = PreTrainedTokenizerFast
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise InputError(no_such(path, "model folder"))
    try:
        return loader.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no tokenizer could be loaded: {str(error).splitlines()[0]}") from None
