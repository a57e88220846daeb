"""Train a generator by supervised fine-tuning on worked solutions."""

from __future__ import annotations

from typing import Any

from stepverify.data.encode import Example
from stepverify.losses import TokenNLL
from stepverify.models import GeneratorModel
from stepverify.modules.base import StepModule
from stepverify.records import Solution


class GeneratorModule(StepModule):
    """Fine-tune a generator on solutions, with the problem's tokens masked.

    Args:
        backbone: the language model to start training from.
        template: text around problems and steps; None takes the template that the backbone was exported with.
        max_length: longest sequence in tokens; longer solutions are left out as a whole and counted.
        optimizer: builds an optimizer from parameter groups; weight decay applies to matrices only.
        warmup: share of the training steps over which the learning rate rises from 0.
        decay: schedule of the learning rate after warmup: ``cosine``, ``linear`` or ``constant``.
        lm_weight: weight of the language-model loss on ``data.lm``.
    """

    loss = TokenNLL()

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Encode a record for next-token prediction of its solution."""
        return self.encoder.next_token(record)

    def encoding_options(self) -> dict[str, Any]:
        """None."""
        return {}

    def build(self) -> GeneratorModel:
        """Load the backbone; whatever samples from it stops at the token that ends a solution."""
        model = GeneratorModel(self.backbone_source.load(self.sharding()))
        model.stop_at(self.encoder.end_id)
        return model
