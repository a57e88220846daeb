"""Which calls begin when: with rows that are few, or that have hardly begun."""

from types import SimpleNamespace

import pytest
import torch
from transformers import PretrainedConfig

from sampling.engines import Request, SamplingOptions
from sampling.engines.decode import Decoder
from sampling.engines.pump import Call

ENDLESS = 5  # a token that is followed by itself


class Same:
    """A network in which every token is followed by itself; notes how many rows it is given."""

    def __init__(self):
        self.config, self.device, self.widths = PretrainedConfig(num_hidden_layers=1), torch.device("cpu"), []

    def __call__(self, *, input_ids, past_key_values, **_):
        nothing = torch.zeros(len(input_ids), 1, input_ids.shape[1], 1)
        past_key_values.update(nothing, nothing, 0)
        self.widths.append(len(input_ids))
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids[:, -1:], 8) * 9.0)


@pytest.mark.parametrize(
    ("first", "after", "begins"),
    [
        (60, 8, True),  # young enough
        (60, 9, False),
        (60, 30, False),
        (48, 30, True),  # few enough
        (49, 30, False),
        (120, 2, False),  # young, but less than an eighth of the places is free
    ],
)
def test_rows_that_come_later(first, after, begins):
    """Of 128 places, ``first`` are taken; eight more rows come after some steps."""
    network = Same()
    decoder = Decoder(network, SimpleNamespace(pad_token_id=0, decode=lambda *_, **__: "a"), set(), 128)
    options = SamplingOptions(temperature=0, max_tokens=100)

    def submit(number):
        request = Request(f"{number}", [ENDLESS], number, 0)
        decoder.submit(Call(request, options, None, [], 100))
        decoder.step()

    submit(first)
    for _ in range(after - 1):
        decoder.step()
    assert network.widths[-1] == first
    submit(8)
    assert network.widths[-1] == first + 8 * begins
