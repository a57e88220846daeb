r"""Read what follows a number: a unit of a known list, or a word that multiplies it. Standard library only.

Any other word leaves the answer unread: ``5 apples`` is 5, but nobody knows what ``5 factorial`` or ``5 lakh`` was
meant to be, and an incorrect answer accepted is worse than a correct one missed.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from importlib.resources import files

_PARTS = {
    "half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "hundredth": 10**2, "thousandth": 10**3, "millionth": 10**6,
}  # fmt: skip
SCALES: dict[str, Fraction] = {
    "hundred": Fraction(10**2), "thousand": Fraction(10**3), "million": Fraction(10**6), "billion": Fraction(10**9),
    "trillion": Fraction(10**12), "dozen": Fraction(12), "lakh": Fraction(10**5), "crore": Fraction(10**7),
    "百": Fraction(10**2), "千": Fraction(10**3), "万": Fraction(10**4), "亿": Fraction(10**8),
    "halves": Fraction(1, 2), **{word: Fraction(1, n) for word, n in _PARTS.items()},
    **{f"{word}s": Fraction(1, n) for word, n in _PARTS.items() if word not in ("half", "quarter")},  # quarters are coins
}  # fmt: skip
"""Words that multiply the number before them."""
_SHORT = frozenset(
    "mm cm dm km m ft in yd mi g kg mg lb lbs oz s sec min h hr hrs mph kph km/h m/s ml mL L day men cup cups pt qt gal "
    "sq cu V W A J N Hz kHz Pa K C F USD EUR rpm fps % times old pts pcs am pm".split()
) - {"am", "pm", "%"}
_LINKS = frozenset("per the a an each".split())
_CHINESE = frozenset("元 块 角 个 只 米 厘米 毫米 分米 千米 公里 千克 公斤 克 吨 岁 天 小时 分钟 秒 年 月 周 人 名 本 支 枝 张 次 条 件 辆 种 度 升 毫升 平方米 平方厘米 立方米 立方厘米 朵 棵 头 页 台 把 筐 箱 瓶 袋 盒 块钱 元钱 美元 分 组 排 间 座 双 颗 粒 位 根 片 杯 束 套 斤 里 步 道 题 场 局 段 层 遍 点".split())  # fmt: skip
_NUMBER_WORDS = frozenset(
    "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy "
    "eighty ninety hundred thousand million".split()
)
_DEGREES = re.compile(r"\s*(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree)\s*[CF]?")
_ORDINAL = re.compile(r"\s*\^?\s*(?:\{\s*)?\\text\{\s*(?:st|nd|rd|th)\s*\}(?:\s*\})?|(?:st|nd|rd|th)(?![A-Za-z])")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_POWER = re.compile(r"(?<=[A-Za-z}])\s*\^\s*(?:\{\s*-?\d\s*\}|\d)")  # of a unit: 2^3 is no 2
_CJK = re.compile(r"\s*([\u4e00-\u9fff]+)\s*")


@cache
def _units() -> frozenset[str]:
    lines = files(__package__).joinpath("units.txt").read_text(encoding="utf-8").splitlines()
    words = {word for line in lines if not line.startswith("#") for word in line.split()}
    singular = {word[: -len(end)] + stem for word in words for end, stem in (("s", ""), ("es", ""), ("ies", "y"))
                if word.endswith(end) and not word.endswith("ss")}  # fmt: skip
    return frozenset(words | {word for word in singular if len(word) >= 3})


def scale_of_unit(rest: str) -> Fraction | None:
    r"""Read the unit after a value: what it multiplies the value by, 1 for most; None where it is more than a unit.

    >>> scale_of_unit(r" \text{ cm}^2"), scale_of_unit(" million dollars"), scale_of_unit(" squared"), scale_of_unit("b")
    (Fraction(1, 1), Fraction(1000000, 1), None, None)
    """
    if not rest:
        return Fraction(1)
    if mark := _DEGREES.match(rest) or _ORDINAL.match(rest):
        rest = rest[mark.end() :]
    if chinese := _CJK.fullmatch(rest):
        return _chinese(chinese[1])
    rest = _POWER.sub("", rest)
    quoted = [word for text in _TEXT.findall(rest) for word in text.split()]
    bare = _TEXT.sub(" ", rest)
    if not quoted and bare[:1].isalpha():
        glued = bare.strip()
        if len(glued) == 1 or glued not in _SHORT:
            return None  # 2b and 2s are products, 5km is a length
    words = [*quoted, *bare.split()]
    if len(words) > 6:
        return None
    scale, after_of = Fraction(1), False
    for word in words:
        plain = word.strip("().,").lower()
        if plain in SCALES:
            scale *= SCALES[plain]
        elif plain == "of":
            after_of = True
        elif after_of and plain.isalpha() and len(plain) > 2 and plain not in _NUMBER_WORDS:
            after_of = False  # 5 cups of whatever
        elif plain and not _is_unit(word.strip("(),"), plain):
            return None
    return None if after_of else scale


def _is_unit(word: str, plain: str) -> bool:
    if plain in _LINKS or word in _SHORT or word.rstrip(".") in _SHORT:
        return True
    return all(part in _units() or part in _SHORT for part in plain.replace("-", "/").split("/"))


def _chinese(word: str) -> Fraction | None:
    scale = Fraction(1)
    while word[:1] in SCALES:
        scale, word = scale * SCALES[word[0]], word[1:]
    return scale if not word or word in _CHINESE else None
