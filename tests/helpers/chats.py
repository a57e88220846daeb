"""Chat templates of the shapes that models have, in our own words, over a tokenizer of characters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampling.engines import Completion, Engine, Request, SamplingOptions

_SPECIAL = ("<pad>", "<eos>", "<bos>", "<|turn|>", "<|stop|>", "<step>")
_NEXT = "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"

SHAPES = {
    # A system turn of its own unless there is one (Qwen2.5).
    "chatml": "{% if messages[0].role != 'system' %}<|turn|>system\nHelp.<|stop|>\n{% endif %}"
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}" + _NEXT,
    # BOS, the date, contents without blank space around them (Llama 3).
    "llama": "{{ bos_token }}{% if day is not defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}"
    "<|turn|>system\nToday is {{ day }}.\n{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<|stop|>{% for m in messages %}<|turn|>{{ m.role }}\n"
    "{{ m.content | trim }}<|stop|>{% endfor %}" + _NEXT,
    # No system turn: its text begins the user's; the sequence's end ends a turn (Mistral).
    "mistral": "{{ bos_token }}{% set s = namespace(text='') %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set s.text = m.content + '\n\n' %}{% elif m.role == 'user' %}[INST] {{ s.text + m.content }} [/INST]"
    "{% set s.text = '' %}{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}",
    # No system turn at all (Gemma).
    "gemma": "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('there is no system turn') }}"
    "{% endif %}{% for m in messages %}<|turn|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|stop|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>model\n{% endif %}",
    # Thinking is dropped from earlier turns; an option for an empty think block (Qwen3).
    "thinking": "{% for m in messages %}<|turn|>{{ m.role }}\n{% set text = m.content.split('</think>')[-1] %}"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ text }}<|stop|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
    # The prompt begins to think (DeepSeek-R1).
    "begun": "{{ bos_token }}{% for m in messages %}{{ '<|turn|>' + m.role }}\n{{ m.content.split('</think>')[-1] }}"
    "<|stop|>{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}",
}  # fmt: skip


def chat_tokenizer(shape: str | None = "chatml", *, eos: str = "<|stop|>", bos: bool = True) -> Any:
    """Make a tokenizer with a token for each ASCII character, and a chat template.

    Args:
        shape: key of :data:`SHAPES`, a template itself, or None for none.
        eos: its end of sequence.
        bos: begin every plain text with ``<bos>``.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(list(_SPECIAL[:5]))
    inner.add_tokens([AddedToken("<step>", normalized=False)])
    if bos:
        inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token=eos, bos_token="<bos>", unk_token="<pad>",
        name_or_path="chatty",
    )  # fmt: skip
    if shape is not None:
        tokenizer.chat_template = SHAPES.get(shape, shape)
    return tokenizer


def write_chat_model(base: Any, folder: Any, shape: str = "chatml", **options: Any) -> str:
    """Write an untrained model with such a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = chat_tokenizer(shape, **options)
    config = AutoConfig.from_pretrained(
        str(base), vocab_size=104, eos_token_id=tokenizer.eos_token_id, pad_token_id=0, bos_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return str(folder)


class Speaker(Engine):
    """Answers with texts, and remembers requests and options.

    Args:
        says: prompt text → the texts of its completions.
        tokenizer: None for a server that renders chats itself.
    """

    model = "speaker"

    def __init__(self, says: Callable[[str], list[str]], tokenizer: Any) -> None:
        self.says, self._tokenizer = says, tokenizer
        self.asked: list[Request] = []
        self.options: list[SamplingOptions] = []

    def identity(self) -> dict[str, Any]:
        return {"engine": "speaker"}

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    async def complete(self, request: Request, options: SamplingOptions) -> list[Completion]:
        self.asked.append(request)
        self.options.append(options)
        texts = (self.says(request.prompt or "") * request.n)[: request.n]
        if self._tokenizer is None:
            return [Completion(None, text, "stop", counted=len(text)) for text in texts]
        return [Completion(self._tokenizer.encode(t, add_special_tokens=False), t, "stop") for t in texts]
