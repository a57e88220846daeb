"""Find final answers in solutions, compare two, and grade many.

Importing this package loads the standard library only.
"""

from stepverify.answers.compare import answer_key, equivalent
from stepverify.answers.extract import Fallback, boxed_answer, concluded_number, extract_answer, last_number
from stepverify.answers.pool import Extracted, Grader

__all__ = [
    "Extracted", "Fallback", "Grader", "answer_key", "boxed_answer", "concluded_number", "equivalent", "extract_answer",
    "last_number",
]  # fmt: skip
