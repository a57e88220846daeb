"""Versions in cards and manifests name what runs, whatever the package's metadata say."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest

import stepverify
from stepverify import versions
from stepverify.versions import installed


def test_the_version_of_torch_includes_its_build(monkeypatch):
    """The metadata of PyPI's CUDA wheels say 2.13.0 where torch says 2.13.0+cu130."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(versions, "version", lambda name: version(name).split("+")[0])
    assert installed("torch") == {"torch": torch.__version__}


def test_packages_come_in_the_given_order_and_missing_ones_are_left_out():
    found = installed("pytest", "no-such-package", "stepverify")
    assert list(found.items()) == [("pytest", pytest.__version__), ("stepverify", stepverify.__version__)]


def test_no_package_is_imported():
    code = (
        "import sys; from stepverify.versions import installed; print(installed('torch') == {}, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pytest.importorskip("torch")
    assert done.stdout == "False False\n"


def test_every_dependency_is_pinned_to_its_lower_bound(root):
    """By the constraints of ``make test-lowest``."""
    done = subprocess.run([sys.executable, root / ".ci" / "lowest.py"], capture_output=True, text=True, check=True)
    pinned = dict(line.split("==") for line in done.stdout.splitlines())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert [re.match(r"[\w-]+", needed)[0] for needed in project["dependencies"]] == list(pinned)[
        : len(project["dependencies"])
    ]
    assert pinned["lightning"] == "2.6.4"
    assert {"aiohttp", "pytest"} <= pinned.keys()
