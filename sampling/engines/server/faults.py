"""Define how an exchange with a server may fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from stepverify.records import InputError

Result = TypeVar("Result")


class Fault(Exception):
    """Report a temporary fault of one attempt.

    Attributes:
        kind: ``unreachable`` (no connection), ``away`` (the server, not the request, seems to be at fault), ``busy``
            (it asks for patience) or ``bad`` (no usable answer to this request).
        wait: seconds after which the server wants to be asked again; None where it does not say.
    """

    def __init__(self, message: str, kind: str = "bad", wait: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.wait = kind, wait


class Refusal(Exception):
    """Report that the server refuses a request for good.

    Attributes:
        whole: it refuses the prompt, and not this completion alone.
    """

    def __init__(self, message: str, *, whole: bool = True) -> None:
        super().__init__(message)
        self.whole = whole


class Absent(InputError):
    """Report that the server has no such path, or no such model."""


async def scrubbed(scrub: Callable[[str], str], work: Awaitable[Result]) -> Result:
    """Await a work, whose faults then hold no secret."""
    try:
        return await work
    except Fault as fault:
        raise Fault(scrub(str(fault)), fault.kind, fault.wait) from None
    except Refusal as refusal:
        raise Refusal(scrub(str(refusal)), whole=refusal.whole) from None
