"""A chain of tokens that writes annotations, and sampling that stops at every equals sign."""

from functools import cache
from types import SimpleNamespace

from sampling.engines import Completion, Engine
from sampling.engines.calculator import calculate

TOKENS = ["<eos>", "\n", "<<", ">>", "=", "=2", "3>>", "+", "-", ".", *"0123456789"]


ID = {token: i for i, token in enumerate(TOKENS)}


NEXT = {
    "\n": {"<<": 3, "<eos>": 1}, "<<": {"1": 1, "2": 1}, "1": {"+": 2, "=": 1, "=2": 1},
    "2": {">>": 1, "=": 1, "3>>": 1}, "+": {"1": 1, "2": 1}, "=": {"1": 1, "2": 1, "3": 1}, "=2": {">>": 1, "3>>": 1},
    "3": {">>": 3, "+": 1}, ">>": {"\n": 1, "2": 1}, "3>>": {"\n": 1, "<eos>": 3},
}  # fmt: skip


class Pieces:
    """A tokenizer that takes the longest token that fits; the end of sequence is no text."""

    eos_token_id, pad_token_id, bos_token_id, name_or_path = 0, 0, None, "token_texts"

    def __call__(self, text):
        return SimpleNamespace(input_ids=self.encode(text))

    def encode(self, text, add_special_tokens=False):
        return list(self._encode(text))

    @staticmethod
    @cache
    def _encode(text):
        ids = []
        while text:
            piece = max((t for t in TOKENS if text.startswith(t)), key=len)
            ids.append(ID[piece])
            text = text[len(piece) :]
        return ids

    def decode(self, ids, skip_special_tokens=True):
        return "".join(TOKENS[i] for i in ids if i)


def weights(last):
    """(V,) weights of the token after ``last``; what the chain does not know is followed by a line end."""
    row = NEXT.get(TOKENS[last], {"\n": 1})
    return [row.get(token, 0) for token in TOKENS]


def put_in(ids):
    """``ids`` as they go on where the calculator acts at the last one; None where it does not."""
    before, text = Pieces().decode(ids[:-1]), Pieces().decode(ids)
    at = text.find("=", len(before))
    if at < 0:
        return None
    _, begun, expression = text[:at].rpartition("<<")
    if not begun or set(expression) & set("<>=\n") or (value := calculate(expression)) is None:
        return None
    if at + 1 == len(text):
        return ids + Pieces().encode(f"{value}>>")
    return ids[:-1] + Pieces().encode(f"{text[len(before) : at]}={value}>>")


def ended(ids, options, room, since=0):
    """The finished completion that ``ids`` begin with, or None; the first ``since`` tokens are known not to end it."""
    for count in range(since + 1, len(ids) + 1):
        text = Pieces().decode(ids[:count])
        if any(stop in text for stop in options.stop):
            return tuple(ids[:count]), text[: min(text.find(s) for s in options.stop if s in text)], "stop"
        if ids[count - 1] == 0:
            return tuple(ids[:count]), text, "stop"
        if count == room:
            return tuple(ids[:count]), text, "length"
    return None


def stopping_at_every_equals_sign(ids, options, room, choose):
    """One solution, token by token: the definition. ``choose`` draws the token at a position after another one."""
    sampled = []
    while True:
        sampled = [*sampled, choose(ids + sampled, len(sampled))]
        if found := ended(sampled, options, room, len(sampled) - 1):
            return found
        if further := put_in(sampled):
            if found := ended(further, options, room, len(sampled) - 1):
                return found
            sampled = further


class Choosing(Engine):
    """An engine that samples by ``choose``, every token anew."""

    model, tokenizer = "choosing", Pieces()

    def __init__(self, choose):
        self.choose = choose

    def identity(self):
        return {"engine": "choosing"}

    async def complete(self, request, options):
        return [self._one(request, options) for _ in range(request.n)]

    def _one(self, request, options):
        ids, known = list(request.prefix_ids), 0
        while not (found := ended(ids, options, options.max_tokens, known)):
            known = len(ids)
            ids.append(self.choose(request.prompt_ids + ids, len(ids)))
        return Completion(list(found[0]), *found[1:])
