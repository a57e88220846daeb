"""Find the versions of installed packages, for model cards and manifests."""

from __future__ import annotations

import runpy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import stepverify


def installed(*names: str) -> dict[str, str]:
    """Return the version of each installed package, without importing it.

    The version of torch includes its build (``2.13.0+cu130``), which a rerun needs for equal numbers.
    """
    return dict(_installed(names))


@cache
def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "torch" in found:
        found["torch"] = _torch() or found["torch"]
    if "stepverify" in names:  # it may run without being installed, and metadata may be outdated
        found["stepverify"] = stepverify.__version__
    return {name: found[name] for name in names if name in found}


def _torch() -> str | None:
    # The metadata of PyPI's CUDA wheels lacks the build. torch.__version__ is read from this file.
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name("version.py")
    return str(runpy.run_path(str(file))["__version__"]) if file.is_file() else None
