"""Load Math-Verify and warm it up, on import.

The server of the grader's workers imports this once, so that each of them starts warm.
"""

from __future__ import annotations

from stepverify.answers.compare import equivalent

# Compiles Math-Verify's patterns and fills its parser's prediction tables, which grow with use.
for _gold, _predicted in (
    (r"\frac{x}{\sqrt{2}} + 1", r"\frac{\sqrt{2} x}{2} - y^2"),
    (r"(-\infty, 2] \cup (3, 5)", r"\{1, 2\pi\}"),
    (r"2x^2 - 2x + 3", r"x^{10} - \frac{\sin^2 x}{2}"),
    (r"x = -2", r"x \geq 30^\circ"),
):
    equivalent(_gold, _predicted)
