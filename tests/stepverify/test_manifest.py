"""What a manifest holds, and how two configurations are compared."""

import json
import math

from stepverify.jsonl import MANIFEST
from stepverify.manifest import first_difference, read_manifest, write_manifest


def test_numbers_that_json_lacks_are_written_as_texts(tmp_path):
    """``.inf`` in a YAML file is a number there; the manifest is read strictly, and the run goes on."""
    config = {"a": math.inf, "b": [{"c": math.nan}, 1.5], "d": -math.inf}
    identity = {"stage": "fit", "config": config, "inputs": {}}
    write_manifest(tmp_path, identity)
    assert json.loads((tmp_path / MANIFEST).read_text())["config"] == {
        "a": "inf",
        "b": [{"c": "nan"}, 1.5],
        "d": "-inf",
    }
    stored = read_manifest(tmp_path / MANIFEST)
    assert first_difference(stored, identity, {"config"}) is None
    assert first_difference(stored, {"config": config | {"a": 2.0}}, {"config"}) == "config.a = 'inf', now it is 2.0"
