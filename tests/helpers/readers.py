"""Files of JSON rows, and what readers say of them."""

import json

import pytest

from stepverify.jsonl import write_records
from stepverify.readers import (
    Problems,
)
from stepverify.records import InputError, Problem


def written(path, *rows):
    """Path of a file of JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(path)


def said(reader, method="solutions"):
    """The message with which a reader refuses its input."""
    with pytest.raises(InputError) as caught:
        list(getattr(reader, method)())
    return str(caught.value)


def read(reader):
    """Steps and ratings of each solution."""
    return [(s.steps, [label and label.rating for label in s.step_labels]) for s in reader.solutions()]


def count(reader):
    found = list(reader.solutions())
    ratings = [label.rating for s in found for label in s.step_labels if label]
    return len(found), len({s.problem_id for s in found}), *(ratings.count(r) for r in (1, 0, -1))


def labels(solution):
    return [label and (label.rating if label.value is None else label.value) for label in solution.step_labels]


def known(folder, *texts):
    write_records(folder / "known.jsonl", [Problem(id=str(i), problem=text) for i, text in enumerate(texts)])
    return Problems(str(folder / "known.jsonl"))
