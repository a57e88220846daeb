"""Final answers: every form in which solutions state them, and what states none."""

import time

import pytest

from stepverify.answers import equivalent, extract_answer
from stepverify.answers.compare import settle


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("16 - 3 - 4 = 9\n9 * 2 = $18\n#### 18", "18"),
        ("#### 1,000", "1,000"),
        ("#### $18", "18"),
        ("#### 18 dollars", "18 dollars"),
        ("A: 3\nSo it takes 3 bolts\nA: 72", "72"),
        ("A: 72\nthen more text", None),  # OpenAI's form counts on the last line alone
        ("The answer is 72.", "72"),
        ("The answer is: 3.14. I hope it is correct.", "3.14"),
        ("the final answer is $72$", "72"),
        ("The answer is $18.", "18"),
        ("So the answer is $5$ and $6$.", "$5$ and $6$"),
        ("The answer to the second question is 7, because 3 + 4 = 7.", "7"),
        ("The answer is\n$$\n\\frac{1}{2}\n$$", r"\frac{1}{2}"),
        ("**Answer:** 12", "12"),
        ("So, the answer is **3 trucks**.", "3 trucks"),
        ("**The answer is 12**", "12"),
        ("The answer is 2**3", "2**3"),
        ("The answer is Evelyn.", "Evelyn"),
        ("The answer is not 5.", None),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"$\boxed 7$ apples", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} or rather \boxed{2}.", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),  # cut off
        (r"\boxed{2", None),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\text{The answer is } 5}", r"\text{The answer is } 5"),
        (r"\boxed{1} The answer is 2.", "2"),  # the last one wins, whatever its form
        ("The answer is 2.\n#### 3", "3"),
        (r"The answer is $\boxed{4}$.", "4"),
        (r"\boxed{44}. So our answer is correct.", "44"),
        ("So it is 6.\n\n# Answer\n\n6", "6"),  # PRM800K's last step, as it is and on one line
        ("So the answer is 5.\n# Answer\n\n\\[(\\frac{1}{2}, \\infty)\\]\n\nQuestion: 7", r"(\frac{1}{2}, \infty)"),
        (r"Right. # Answer \frac{1}{2}", r"\frac{1}{2}"),
        ("## Final Answer: even", "even"),
        ("# Answer\n\nThe answer is 5.", "5"),
        ("# Answers\n5", None),
        ("# Answer to the question\n5", None),
        ("# Answer", None),
        ("There are 5 apples and 3 = 3", None),
        ("####", None),
        ("", None),
    ],
)  # fmt: skip
def test_extracts_the_last_statement(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [r"\boxed{" * 20_000, r"\boxed" + "{" * 50_000, "answer is " * 10_000, "\n" * 100_000, "answer" + " " * 100_000,
     "####\n" * 20_000, "# Answer\n" * 20_000, "# Answer" + "\n" * 100_000, "#" * 100_000, "# " * 50_000, f"A:{' ' * 100_000}x\ny", "answer is " + "$ " * 50_000,
     "\\boxed{" + "." * 100_000 + "}"],
)  # fmt: skip
def test_time_is_linear_in_the_length(text):
    # Quadratic time would be minutes on 100 kB; 10 s leaves room for a busy machine.
    start = time.process_time()
    extract_answer(text)
    settle(text, "5")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('**Final Answer**\n\n6', '6'),
        ('**Answer:**\n6', '6'),
        ('The answer is:\n5', '5'),
        ('✅ Final Answer: **51**', '51'),
        ('<answer>17</answer>', '17'),
        ('The answer must be 5', '5'),
        ('- Answer: 5', '5'),
        ('The answers are 6 and 7.', '6 and 7'),
        ('#### 64, in total', '64'),
        ('The answer is 64, altogether.', '64'),
        ('The answer is unknown, but 5 is close.', 'unknown'),
        ('<think>so 5\n#### 5</think>\n\nThe answer is 6.', '6'),
        ('<think>The answer is 5', None),
        ('I think 5.</think>The answer is 7.', '7'),
        ('#### 5\n\nQ: What?\n#### 9', '5'),
        ('The answer is 5.\nQuestion: Next\nThe answer is 7.', '5'),
        ('Question: how many?\nThe answer is 7.', '7'),
        ('1. Answer: 5', '5'),
        ('• Answer: 5', '5'),
        ('> Answer: 5', '5'),
        ('Answer : 5', '5'),
        ('Ans: 5', '5'),
        ('ANSWER: B', 'B'),
        ('Final Answer: The final answer is $28$. I hope it is correct.', '28'),
        ('The answer is (B).', '(B)'),
        ('The answer is B', 'B'),
        ('**Answer: 5**', '5'),
        ('__Answer:__ 5', '5'),
        ('### Answer: 5', '5'),
        ('### Final Answer:\n\n$$\n5\n$$', '5'),
        ('Final Answer\n5', '5'),
        ('The final answer is **$5**.', '5'),
        ('The answer is `5`.', '5'),
        ('so the correct answer is 5 apples, not 6.', '5 apples'),
        ('The answer is 5, since 2+3=5', '5'),
        ('Hence the answer is\n\\[ \\boxed{5} \\]', '5'),
        ('The answer is 1,234.', '1,234'),
        ('The answer is 3.14.', '3.14'),
        ('Answer: x = 5', 'x = 5'),
        ('The answer is five', 'five'),
        ("The answer isn't 5.", None),
        ('The answer is not 5 but 6.', None),
        ('The answer cannot be 5', None),
        ('\\boxed{5}\n\nQuestion: x \\boxed{6}', '5'),
        ('The answer is \\boxed{5}, i.e. 5 apples', '5'),
        ('<answer>\n17\n</answer>', '17'),
        ('<answer>\\boxed{17}</answer>', '17'),
        ('<answer>The answer is 17.</answer>', '17'),
        ('The total is 5\n\n**Final Answer:** 5 dollars', '5 dollars'),
        ('#### **5**', '5'),
        ('#### 5 ✅', '5'),
        ('The answer is $5.00$ dollars', '$5.00$ dollars'),
        ('Answer: 5\n\nExplanation: we have 7', '5'),
        ('The answer is 5. Let me verify: 2+3=5.', '5'),
        ('My final answer is 5.', '5'),
        ('The answer should be 5.', '5'),
        ('The answer will be 5', '5'),
        ('the answer is approximately 3.14', '3.14'),
        ('Answer:\n\nWe add 5 and 6 to get 11 as the sum', None),
        ('The answer is 5 (mod 7)', '5 (mod 7)'),
        ('The answer is x(a-b)', 'x(a-b)'),
        ('答案是 5', '5'),
        ('所以答案为：\\boxed{5}', '5'),
        ('The answer is $\\frac{1}{2}$ or $0.5$.', '$\\frac{1}{2}$ or $0.5$'),
        ('Therefore, the answer is \\(5\\).', '5'),
        ('The answer is 5!', '5'),
        ('Answer: 2/3 cup', '2/3 cup'),
        ('Answer -> 5', None),
        ('The answer is: "5"', '"5"'),
        ('The answer is 5</s>', '5'),
        ('The answer is 5<|endoftext|>Human: The answer is 6', '5'),
        ('the answer is clearly 5', '5'),
        ('Answer: No', 'No'),
        ('The answer is yes, because x', 'yes'),
        ('A: 5', '5'),
        ("Answer: 5 (since 2+3=5)", "5"),
        ("The answer is 5 — that is, five.", "5"),
        ("The answer is 5, i.e., five apples.", "5"),
        ("So the answer is 5 apples total.", "5 apples"),
        ("The answer we get is 5.", "5"),
        ("The answer, therefore, is 5.", "5"),
        ("<final_answer>5</final_answer>", "5"),
        ("故答案为：5。", "5"),
        ("#### 5 in all", "5"),
        ("The answer is 2:30 p.m. because", "2:30 p.m"),
        ("The answer is [1, 2].", "[1, 2]"),
        ("The answer is (-\\infty, 5).", "(-\\infty, 5)"),
        ("The answer of the total combined cost is 5", "5"),
    ],
)  # fmt: skip
def test_finds_the_answers_that_chat_models_state(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1} and $\boxed{2}$.", "1, 2"), (r"\[\boxed{-2} \quad \text{and} \quad \boxed{\frac12}.\]", r"-2, \frac12"),
        (r"\boxed{3}, \boxed{4}, and \boxed{5}", "3, 4, 5"), (r"\boxed{28}$ or $\boxed{28_9}$.", "28_9"), (r"\boxed{1} so \boxed{2}", "2"),
        (r"#### 7 and \boxed{2}", "2"), (r"\boxed{1}, \boxed{2", "1"),
    ],
)  # fmt: skip
def test_boxes_that_are_joined_state_one_answer(text, answer):
    assert extract_answer(text) == answer


def test_a_solution_or_sentence_is_what_it_states():
    assert settle("72", "She sold 48 + 24 = 72 clips in all.\n#### 72") is True
    assert settle("72", "48 + 24 = 72\n#### 72") is True
    assert settle("72", r"So the two months together make $\boxed{72}$, and not 70.") is True
    assert equivalent("2/3", "Therefore the probability that Alice wins is 2/3. And so on")
    assert not equivalent("1/3", "Therefore the probability that Alice wins is 2/3. And so on")
