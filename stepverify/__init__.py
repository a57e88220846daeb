"""Train verifiers for step-by-step mathematics: generator, outcome verifier, process reward model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepverify.verifier import Verifier

__version__ = "0.1.0"
__all__ = ["Verifier", "__version__"]


def __getattr__(name: str) -> Any:
    """Import :class:`Verifier` on first use.

    Records and readers thus load without torch.
    """
    if name == "Verifier":
        from stepverify.verifier import Verifier

        return Verifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
