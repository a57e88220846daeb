"""Write the prompts of requests, in every form that an engine reads."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from sampling.engines import Completion, Engine, Message, Request, SamplingOptions
from sampling.runtime.inputs import exported_template
from stepverify.data.encode import SolutionEncoder
from stepverify.records import InputError, Problem, Solution
from stepverify.template import Template
from stepverify.thinking import thinking


def template_of(engine: Engine, template: Template | None) -> Template:
    """Return the template of an engine's prompts, with what its chat template writes.

    Args:
        engine: its tokenizer is loaded for a chat template alone. A server without one renders chats itself.
        template: None takes the one that the model was exported with, or the default.

    Raises:
        InputError: the chat template cannot be used, or is another one than at the export.
    """
    template = template or exported_template(engine.model)
    if not template.chat:
        return template
    if engine.tokenizer is None:
        if template.chat_options:
            raise InputError(
                "template.chat_options: this server renders chats itself; give them to it by the engine's extra_body: "
                f"{{chat_template_kwargs: {template.chat_options}}}"
            )
        return template
    return template.rendered_by(engine.tokenizer)


class Prompts:
    """Make requests for completions of problems, and of prefixes of their solutions.

    Args:
        engine: reads token ids, or without a tokenizer text or messages.
        template: as :func:`template_of` returns it.
        examples: worked problems before every prompt.

    Attributes:
        encoder: None for an engine without a tokenizer.

    Raises:
        InputError: an example that cannot be rendered.
    """

    def __init__(self, engine: Engine, template: Template, examples: Sequence[Problem] = ()) -> None:
        self.template, self.examples = template, examples
        tokenizer = engine.tokenizer
        self.encoder = None if tokenizer is None else SolutionEncoder(tokenizer, template, examples=examples)
        self._has_text = not template.chat or tokenizer is not None
        if self._has_text:
            self._prompting, self._few_shot = template.with_examples(tokenizer, examples)

    def request(self, key: str, problem: str, n: int, seed: int, steps: Sequence[str] = ()) -> Request:
        """Ask for ``n`` completions of a problem's prompt and the steps so far."""
        messages = None
        if self.template.chat:
            turns = self.template.messages(problem, steps, self.examples)
            messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)
        return Request(
            key, [] if self.encoder is None else self.encoder.path(problem, steps), n, seed,
            prompt=self._few_shot + self._prompting.render(problem, steps) if self._has_text else None,
            messages=messages,
        )  # fmt: skip

    def continued(self, request: Request, token_ids: Sequence[int] | None, text: str) -> Request:
        """Return a request that goes on after the tokens, and the text, that were sampled so far.

        Stop texts then count from there. Nothing is tokenized again where the tokens are known.
        """
        if not text and not token_ids:
            return request
        messages = request.messages and (*request.messages, Message("assistant", text))
        prompt = None if request.prompt is None else request.prompt + text
        return dataclasses.replace(
            request, prompt_ids=[*request.prompt_ids, *(token_ids or ())], prompt=prompt, messages=messages, served={}
        )

    def options(self, sampling: SamplingOptions) -> SamplingOptions:
        """Return the sampling options with the chat template's end of turn among the stop ids.

        A model's own configuration may lack it, as that of a base model with a chat template.
        """
        if self.encoder is None or self.encoder.end_id in (self.encoder.tokenizer.eos_token_id, *sampling.stop_ids):
            return sampling
        return dataclasses.replace(sampling, stop_ids=[*sampling.stop_ids, self.encoder.end_id])

    def solution(self, problem: Problem, index: int, sampled: Completion, **known: Any) -> Solution:
        """Make the ``index``-th solution of a problem from a completion of its prompt.

        Where thinking was removed, ``meta`` has the number of its tokens, ``thinking_tokens``.
        """
        meta = {}
        if self.template.strip_thinking and (count := self._thinking_tokens(sampled)):
            meta["thinking_tokens"] = count
        return Solution.of(
            problem, index, self.template.split(sampled.text), step_separator=self.template.joint,
            token_ids=sampled.token_ids, finish=sampled.finish, num_calculator_edits=sampled.num_calculator_edits,
            meta=meta, **known,
        )  # fmt: skip

    def _thinking_tokens(self, sampled: Completion) -> int:
        ids, spans = sampled.token_ids, thinking(sampled.text, begun=self.template.begins_thinking)
        if ids is None or self.encoder is None:  # by their share of the text
            return round(sampled.num_tokens * sum(b - a for a, b in spans) / max(1, len(sampled.text)))
        decode = self.encoder.tokenizer.decode

        def tokens(length: int) -> int:
            return bisect_left(
                range(len(ids)), length, key=lambda k: len(decode(ids[:k], skip_special_tokens=True))
            )  # fmt: skip

        return sum(tokens(end) - tokens(begin) for begin, end in spans)
