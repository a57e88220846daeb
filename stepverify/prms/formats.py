"""Encode solutions for released process reward models, as their model cards do. Without torch.

A format gives the token ids of a card's prompt, and the position at which each step is read. All steps are read in one
pass: what follows a position does not change it. Where a card scores one prefix a pass (RLHFlow), its prompts are
prefixes of each other.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, ClassVar

from stepverify.data.encode import Example, LeftOut, SolutionEncoder
from stepverify.records import InputError, Solution
from stepverify.template import Template

Encoded = tuple[list[int], list[int]]
_PROBE = ("What is 2 + 3?", ["2 + 3 = 5.", "The answer is 5."])


class PRMFormat(SolutionEncoder):
    """Encode problems and steps as one released model was trained to read them.

    Args:
        tokenizer: the model's tokenizer.
        max_length: longest sequence in tokens; a longer solution is left out as a whole.

    Attributes:
        separator: text between the steps of a solution that is given as one text.
        label_ids: ids of the labels incorrect and correct; empty if the model has a head of its own.

    Raises:
        InputError: the tokenizer is not that of the model.
    """

    separator: ClassVar[str] = "\n\n"
    label_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, Template(step_separator=self.separator), max_length)

    @abstractmethod
    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return the ids of the whole prompt, and one position for each step.

        Raises:
            InputError: the tokenizer splits it in another way than the model's does.
        """

    def process(self, record: Solution, targets: Sequence[float | None] | None) -> Example:
        """Encode a solution for scoring."""
        if not record.steps:
            raise LeftOut("without a step")
        ids, positions = self.encode(record.problem.strip(), record.steps)
        assert len(positions) == len(record.steps)
        ids = self._fitting(ids[: positions[-1] + 1])  # later tokens are not read
        return Example(ids, positions, None, record)

    def probe_tokenizer(self) -> None:
        """Encode a fixed text, so that an unsuitable tokenizer is found before a model is loaded."""
        self.encode(*_PROBE)

    def _chat(self, turns: Sequence[tuple[str, str]]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    def _need_chat_template(self) -> None:
        if not self.tokenizer.chat_template:
            raise InputError(f"{self.tokenizer.name_or_path}: the tokenizer has no chat template")

    def _read_at(self, text: str, ends: Sequence[int], token_id: int) -> Encoded:
        """Encode a text; find the tokens that hold the characters before ``ends``."""
        encoded = self.tokenizer(text)
        positions = [encoded.char_to_token(end - 1) for end in ends]
        ids = list(encoded.input_ids)
        if any(at is None or ids[at] != token_id for at in positions):
            raise InputError(
                f"{self.tokenizer.name_or_path}: the step tag {self.tokenizer.decode([token_id])!r} is not one token "
                "in every place"
            )
        return ids, positions


class QwenFormat(PRMFormat):
    """Format Qwen2.5-Math-PRM: a chat whose answer has ``<extra_0>`` after each step, read there."""

    tag = "<extra_0>"
    system = "Please reason step by step, and put your final answer within \\boxed{}."

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        self._need_chat_template()
        found = tokenizer.encode(self.tag, add_special_tokens=False)
        if len(found) != 1:
            raise InputError(f"{tokenizer.name_or_path}: the step tag {self.tag} is {len(found)} tokens, not one")
        self.tag_id: int = found[0]

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return the chat's ids, and the positions of the tags."""
        pieces = [step + self.tag for step in steps]
        answer = "".join(pieces)
        text = self._chat([("system", self.system), ("user", problem), ("assistant", answer)])
        if (start := text.rfind(answer)) < 0:
            raise InputError(f"{self.tokenizer.name_or_path}: its chat template changes the text of the answer")
        return self._read_at(text, [start + end for end in accumulate(map(len, pieces))], self.tag_id)


class MathShepherdFormat(PRMFormat):
    """Format Math-Shepherd: ``Step i: … ки`` on lines, read at ``ки`` by the next token's ``+`` and ``-``.

    Steps without their number get it, as in the training data.
    """

    separator = "\n"
    tag = "ки"

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        self.tag_id: int = tokenizer.encode(self.tag, add_special_tokens=False)[-1]
        labels = tokenizer.encode("+ -", add_special_tokens=False)
        if (found := tokenizer.convert_ids_to_tokens(labels)) != ["▁+", "▁-"]:
            raise InputError(f"{tokenizer.name_or_path}: '+ -' is {found}, not the tokens ▁+ and ▁-")
        self.label_ids = (labels[1], labels[0])

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return the text's ids, and the positions of the tags."""
        numbered = [s if s.startswith(f"Step {i}:") else f"Step {i}: {s}" for i, s in enumerate(steps, start=1)]
        pieces = [f"{problem} {numbered[0]} {self.tag}", *(f"\n{step} {self.tag}" for step in numbered[1:])]
        return self._read_at("".join(pieces), list(accumulate(map(len, pieces))), self.tag_id)


class RLHFlowFormat(PRMFormat):
    """Format RLHFlow: user turns are steps, answered by ``+`` or ``-``; read at the token before the answer.

    The first turn is problem and first step. Every step is answered by ``+``, as on the model card, so a prefix of a
    solution is a prefix of its chat, and one pass reads all steps.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        self._need_chat_template()
        self.label_ids = tuple(tokenizer.encode(label, add_special_tokens=False)[-1] for label in "-+")

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return the chat's ids, and the positions before the answers."""
        minus, plus = ([*self._answered(problem, steps, label)] for label in "-+")
        answers = [i for i, pair in enumerate(zip(minus, plus, strict=False)) if pair[0] != pair[1]]
        found = {(minus[i], plus[i]) for i in answers}
        if len(minus) != len(plus) or len(answers) != len(steps) or found != {self.label_ids}:
            raise InputError(f"{self.tokenizer.name_or_path}: + and - are not one token in its chat template")
        return plus, [i - 1 for i in answers]

    def _answered(self, problem: str, steps: Sequence[str], label: str) -> list[int]:
        first, *others = (step.strip() for step in steps)
        asked = [f"{problem} {first}", *others]
        text = self._chat([turn for step in asked for turn in (("user", step), ("assistant", label))])
        return self.tokenizer.encode(text, add_special_tokens=False)


class SkyworkFormat(PRMFormat):
    """Format Skywork-o1-Open-PRM: the problem's line, then the steps' lines, each read at its line end.

    A step of several lines is read at the last one.
    """

    separator = "\n"

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        if tokenizer.bos_token is None:
            raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no beginning-of-sequence token")
        self.tag_id: int = tokenizer.encode("\n")[-1]

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return ids of the problem and each line, and the positions of the steps' line ends."""
        ids = list(self.tokenizer.encode(f"{self.tokenizer.bos_token}{problem}\n"))
        positions = []
        for step in steps:
            for line in step.split("\n"):
                ids += [*(self.tokenizer.encode(line) if line else ()), self.tag_id]
            positions.append(len(ids) - 1)
        return ids, positions


class TRLFormat(PRMFormat):
    """Format what TRL's PRMTrainer trained: prompt, then steps with a separator, read at its last token.

    Args:
        tokenizer: the model's tokenizer.
        max_length: longest sequence in tokens.
        prompt: TRL's ``prompt``; ``{problem}`` is replaced by the problem.
        step_separator: ``step_separator`` of TRL's PRMConfig.
    """

    def __init__(self, tokenizer: Any, max_length: int, prompt: str = "{problem}", step_separator: str = "\n") -> None:
        super().__init__(tokenizer, max_length)
        if prompt.count("{problem}") != 1:
            raise InputError(f"prompt: expected exactly one {{problem}} in {prompt!r}")
        self.text, self._separator_ids = prompt, tokenizer.encode(step_separator, add_special_tokens=False)
        if not self._separator_ids:
            raise InputError(f"step_separator: {step_separator!r} has no token in {tokenizer.name_or_path}")
        if step_separator.startswith("\n"):
            self.template = Template(step_separator=step_separator)

    def encode(self, problem: str, steps: Sequence[str]) -> Encoded:
        """Return ids of prompt and steps, and the positions of the separators."""
        bos = self.tokenizer.bos_token_id
        ids = [] if bos is None else [bos]
        ids += self.tokenizer.encode(self.text.replace("{problem}", problem), add_special_tokens=False)
        positions = []
        for step in steps:
            ids += [*self.tokenizer.encode(step, add_special_tokens=False), *self._separator_ids]
            positions.append(len(ids) - 1)
        return ids, positions
