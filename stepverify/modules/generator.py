"""The generator: supervised fine-tuning on worked solutions."""

from __future__ import annotations

from stepverify.data.encode import Example
from stepverify.losses import TokenNLL
from stepverify.models import GeneratorModel
from stepverify.modules.base import StepModule
from stepverify.records import Solution


class GeneratorModule(StepModule):
    """Next-token likelihood of solutions, the problem masked.

    Arguments as :class:`StepModule`.
    """

    loss = TokenNLL()

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """Read before every solution token."""
        return self.encoder.next_token(record)

    def build(self) -> GeneratorModel:
        """Load the backbone."""
        return GeneratorModel(self.backbone_source.load(self.sharding()))
