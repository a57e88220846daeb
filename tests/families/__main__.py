"""Write the table of supported architectures into stepverify/README.md: ``python -m tests.families``."""

from __future__ import annotations

import re
from pathlib import Path

from tests.families.table import FAMILIES

README = Path(__file__).parents[2] / "stepverify" / "README.md"
_PART = re.compile(r"(?<=<!-- families -->\n).*?(?=<!-- /families -->)", re.DOTALL)


def table() -> str:
    """Rows of architectures that are read alike."""
    ways = {"packed": "computed once", "unpacked": "computed for each solution, in rows with padding"}
    forms = {"classifier": "token classifier", "value_head": "causal model and value head"}
    rows = ["| Shared prefixes | ORM is exported as | `model_type` |", "|---|---|---|"]
    for reads, way in ways.items():
        for orm, form in forms.items():
            names = [
                f"`{f.kind}`" + (f" ({f.note})" if f.note else "") for f in FAMILIES if (f.reads, f.orm) == (reads, orm)
            ]
            rows.append(f"| {way} | {form} | {', '.join(names)} |")
    refused = [f for f in FAMILIES if f.reads.startswith("refused: ")]
    rows += [f"| refused: {f.reads.removeprefix('refused: ')} | | `{f.kind}` |" for f in refused]
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """A README's text with the table of today."""
    return _PART.sub(lambda found: table(), text)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
