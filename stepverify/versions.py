"""Versions of installed packages, as model cards and manifests record them."""

from __future__ import annotations

import runpy
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import stepverify


def installed(*names: str) -> dict[str, str]:
    """Return the version of each package that is installed, without importing it.

    The version of torch includes its build (``2.13.0+cu130``), which a rerun needs to give equal numbers.
    """
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "torch" in found:
        found["torch"] = _torch() or found["torch"]
    if "stepverify" in names:  # also runs from a folder that is not installed, and metadata may be of an older state
        found["stepverify"] = stepverify.__version__
    return {name: found[name] for name in names if name in found}


def _torch() -> str | None:
    # The CUDA wheels on PyPI leave the build out of their metadata. The file is what torch.__version__ is read from.
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    return str(runpy.run_path(str(file))["__version__"]) if file.is_file() else None
