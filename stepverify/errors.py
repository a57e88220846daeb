"""Define the error that programs report in one line. Imports nothing."""

from __future__ import annotations


class InputError(ValueError):
    """Report bad user input: file, line, key and value.

    The programs exit with code 2.
    """

    @classmethod
    def within(cls, error: BaseException | None) -> InputError | None:
        """Find the InputError in a chain of exceptions, or None.

        The configuration parser wraps what a class raises in errors of its own.
        """
        while error is not None and not isinstance(error, cls):
            error = error.__cause__ or error.__context__
        return error
