"""Write requests in the form that a server takes.

Nothing is left to a server's defaults, or to the model's generation_config.json, that the server lets us set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sampling.engines.base import Message, Request, SamplingOptions, seed_after
from stepverify.records import InputError

Form = Literal["tokens", "text", "chat"]
"""Name how prompts are sent: token ids, their text, or messages."""

PATHS: Mapping[Form, str] = {"tokens": "/completions", "text": "/completions", "chat": "/chat/completions"}
# Beyond OpenAI's protocol. vLLM takes all but repeat_penalty, which is llama.cpp's word for repetition_penalty.
EXTRAS = ("top_k", "min_p", "repetition_penalty", "repeat_penalty", "stop_token_ids", "return_token_ids")
# OpenAI's own; some services refuse them for some models.
STANDARD = ("presence_penalty", "frequency_penalty", "seed", "temperature", "top_p", "stop")
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}


@dataclass(frozen=True)
class Protocol:
    """Describe how to ask a server for completions.

    Attributes:
        form: how prompts are sent.
        model: the server's name of the model.
        left_out: fields that it refuses ...
        refusal: ... and what it said about the latest of them.
        limit_field: its name of the token limit, ``max_tokens`` or ``max_completion_tokens``.
        returns_ids: it reports the sampled token ids.
        context: longest prompt and completion in tokens; None if unknown.
        prompt_tokens: number of tokens that it counts in the prompt of the first request; None if it does not say.
        extra_body: fields that the user adds to every request.
    """

    form: Form
    model: str
    left_out: frozenset[str] = frozenset()
    refusal: str = ""
    limit_field: str = "max_tokens"
    returns_ids: bool = False
    context: int | None = None
    prompt_tokens: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Return the path of requests below the endpoint."""
        return PATHS[self.form]

    def body(self, request: Request, i: int, max_tokens: int, options: SamplingOptions) -> dict[str, Any]:
        """Return the body that asks for completion i of a request."""
        fields: dict[str, Any] = {
            "seed": seed_after(request) + i, "temperature": options.temperature, "top_p": options.top_p,
            "top_k": options.top_k, "stop": options.stop, "stop_token_ids": options.stop_ids, "return_token_ids": True,
            "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0, "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }  # fmt: skip
        sent = {name: value for name, value in fields.items() if name not in self.left_out}
        if number := request.top_logprobs:
            sent |= {"logprobs": True, "top_logprobs": number} if self.form == "chat" else {"logprobs": number}
            if self.form == "tokens":  # several tokens may have one text, of which vLLM would name the last
                sent["return_tokens_as_token_ids"] = True
        if not options.stop:  # some services take null or texts, but no empty list
            sent.pop("stop", None)
        return {"model": self.model, **self._prompt(request), self.limit_field: max_tokens, **sent, **self.extra_body}

    def _prompt(self, request: Request) -> dict[str, Any]:
        if self.form == "tokens":
            return {"prompt": request.prompt_ids + request.prefix_ids}
        if self.form == "text":
            return {"prompt": request.prompt}
        assert request.messages is not None
        turns = [{"role": message.role, "content": message.content} for message in request.messages]
        return {"messages": turns, **(CONTINUE if continues(request.messages) else {})}

    def check(self, options: SamplingOptions, where: str) -> None:
        """Check that every option that decides the completions reaches the server.

        Raises:
            InputError: an option that this server refuses, or whose effect cannot be seen.
        """
        neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "stop": []}
        for name, value in neutral.items():
            if name in self.left_out and getattr(options, name) != value:
                raise InputError(
                    f"sampling.{name}: {where} refuses {name} ({self.refusal}); set sampling.{name}: {value}"
                )
        if options.stop_ids and not self.returns_ids:
            raise InputError(
                f"sampling.stop_ids: {where} returns no token ids, so it is unknown whether it stops at them; use the "
                "texts of sampling.stop"
            )

    def difference(self, other: Protocol, where: str) -> str:
        """Return how it differs from the protocol of another server, ``where``; empty if it is used alike."""
        facts: list[tuple[str, Callable[[Protocol], Any]]] = [
            ("form of prompts", lambda p: p.form),
            ("returned token ids", lambda p: "yes" if p.returns_ids else "no"),
            ("fields that it refuses", lambda p: ", ".join(sorted(p.left_out)) or "none"),
            ("token limit", lambda p: p.limit_field),
        ]
        if None not in (self.prompt_tokens, other.prompt_tokens):
            facts.append(("tokens that it counts in one prompt", lambda p: p.prompt_tokens))
        pairs = [(name, fact(self), fact(other)) for name, fact in facts]
        differ = [f"{name}: {ours} (there {theirs})" for name, ours, theirs in pairs if ours != theirs]
        return f"differs from {where}: {'; '.join(differ)}" if differ else ""

    def describe(self) -> str:
        """Describe what was found, for the log."""
        prompts = {"tokens": "prompts as token ids", "text": "prompts as text", "chat": "prompts as messages"}
        found = [f"{self.path} with {prompts[self.form]}"]
        found.append("token ids are returned" if self.returns_ids else "no token ids are returned: records hold none")
        if left_out := sorted(self.left_out - {"repeat_penalty"} if self.returns_ids else self.left_out):
            found.append(f"left out, as the server refuses them: {', '.join(left_out)}")
        if "seed" in self.left_out:
            found.append("completions are not reproducible")
        return "; ".join(found)


def continues(messages: tuple[Message, ...] | None) -> bool:
    """Tell whether a conversation ends with a turn of the assistant that is to be continued."""
    return messages is not None and len(messages) > 0 and messages[-1].role == "assistant"
