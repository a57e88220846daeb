"""A process reward model with the labels two tokens too early: what a library that shifts them costs."""

from __future__ import annotations

from dataclasses import replace

from stepverify.data.encode import Example
from stepverify.modules import ProcessRewardModel
from stepverify.records import Solution


class ShiftedRewardModel(ProcessRewardModel):
    """Trained two tokens before the tag of each step, read at the tag, where nothing was trained.

    That is what becomes of labels that stand at the tag, if the data moves them by one position for the next token and
    the model's own loss then moves them by one more. Validation during training reads where it was trained, so nothing
    looks incorrect; scores come from the export, which is read at the tags as that of any reward model.

        PYTHONPATH=. stepverify fit --config lit_configs/math_prm800k/10_prm.yaml \
          --model tests.benchmarks.peers.shifted.ShiftedRewardModel
    """

    def encode(self, record: Solution, *, labelled: bool) -> Example:
        """As :class:`ProcessRewardModel`, two tokens earlier where there are labels."""
        example = super().encode(record, labelled=labelled)
        return replace(example, positions=[p - 2 for p in example.positions]) if labelled else example
