"""Problems of a few words."""

from stepverify.readers import Reader
from stepverify.records import Problem


class Given(Reader):
    """A reader of problems that are in memory."""

    def __init__(self, *problems):
        self.given = problems

    def problems(self):
        yield from self.given


def problem(number, **known):
    return Problem(**{"id": f"p/{number}", "problem": f"What is {number}?", "answer": str(number)} | known)
