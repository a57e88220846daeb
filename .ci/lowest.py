"""Print pip constraints that pin every dependency to the lower bound that pyproject.toml gives it."""

import re
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
    if bound := re.fullmatch(r"([\w-]+)(?:\[.*])?>=([\d.]+).*", requirement):
        print("==".join(bound.groups()))
