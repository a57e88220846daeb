"""Small untrained modules and their solutions."""

from __future__ import annotations

import torch

from stepverify.models import Backbone
from stepverify.template import Template

BASE = "lit_configs/quickstart/base"


TEMPLATE = Template(prompt="{problem}\n")


def backbone(**settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return Backbone(path=BASE, weights="random", **settings).load()
