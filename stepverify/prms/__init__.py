"""Load process reward models that others have released."""

from typing import TYPE_CHECKING, Any

from stepverify.prms.families import FAMILIES, Family, check_files, load_format

if TYPE_CHECKING:
    from stepverify.prms.load import load_prm

__all__ = ["FAMILIES", "Family", "check_files", "load_format", "load_prm"]


def __getattr__(name: str) -> Any:
    if name == "load_prm":  # imports torch, which stages do not need to start
        from stepverify.prms.load import load_prm

        return load_prm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
