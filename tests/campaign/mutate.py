"""Mutations of JSON documents that know their structure."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

_RAW = "@@raw@@"

# Tokens of JSON, or of what passes for it, that stand in the place of a value.
TOKENS = {
    "null": "null", "true": "true", "false": "false", "zero": "0", "minus": "-1", "half": "0.5", "two": "2",
    "2^63": str(2**63), "2^64": str(2**64), "400 digits": "1" + "0" * 400, "4301 digits": "9" * 4301,
    "1e308": "1e308", "1e999": "1e999", "-1e999": "-1e999", "1e-999": "1e-999", "NaN": "NaN", "Infinity": "Infinity",
    "-Infinity": "-Infinity", "01": "01", "+1": "+1", ".5": ".5", "0x10": "0x10",
    "empty text": '""', "space": '" "', "line ends": '"\\n\\r\\n\\u2028"', "nul": '"\\u0000"', "escape": '"\\u001b[31m"',
    "half pair": '"\\ud800"', "other half": '"a\\udc00b"', "reversed pair": '"\\udc00\\ud800"', "emoji": '"\\ud83d\\ude00"',
    "digit": '"7"', "mathtext": '"$x_{$ \\\\frac{"', "html": '"</script><img src=x onerror=1>"', "table": '"a|b\\n| c"',
    "path": '"../../etc/passwd"', "long": '"' + "x" * 100_000 + '"', "boxed": '"\\\\boxed{' + "{" * 300 + '1"',
    "number": '"#### 1e999999999"', "tower": '"#### 9^{9^{9^9}}"', "right to left": '"\\u202eabc"',
    "empty list": "[]", "empty object": "{}", "nested list": "[[[]]]", "list of null": "[null]",
    "list of texts": '["", "a"]', "mixed list": '[1, "a", null, {}]', "long list": "[" + "0," * 20_000 + "0]",
    "50 deep": "[" * 50 + "]" * 50, "500 deep": "[" * 500 + "]" * 500, "900 objects": '{"a":' * 900 + "1" + "}" * 900,
    "50000 deep": "[" * 50_000 + "]" * 50_000, "unclosed": "[" * 5_000, "half pair as key": '{"\\ud800": 1}',
    "same key twice": '{"a": 1, "a": 2}', "empty key": '{"": 1}',
}  # fmt: skip

_KEYS = ["", " ", "id", "stepz", "\u0000", "$", "a.b", "x" * 1000, "__class__", "correct ", "İd"]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the places of all values within a document, its root first."""
    found = [at]
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += places(item, (*at, key))
    return found


def mutated(document: Any, rng: Random) -> tuple[str, str]:
    """Change one place of a document; return the name of the change and the text of the document."""
    document = copy.deepcopy(document)
    at = rng.choice(places(document))
    where = ".".join(map(str, at)) or "root"
    parent = document
    for key in at[:-1]:
        parent = parent[key]
    what = rng.choice(("token",) * 6 + ("delete", "rename", "add", "double", "swap"))
    if what == "token" or not at:
        name = rng.choice([*TOKENS])
        if not at:
            return f"root {name}", TOKENS[name]
        parent[at[-1]] = _RAW
        return f"{where} {name}", json.dumps(document).replace(f'"{_RAW}"', TOKENS[name])
    if what == "delete":
        del parent[at[-1]]
    elif what == "double" and isinstance(parent, list):
        parent.insert(at[-1], parent[at[-1]])
    elif what == "swap":
        other = rng.choice(places(document))
        found = document
        for key in other:
            found = found[key]
        parent[at[-1]] = copy.deepcopy(found)
        what = f"swap {'.'.join(map(str, other))}"
    elif isinstance(parent, dict):
        key = rng.choice(_KEYS)
        parent[key] = parent.pop(at[-1]) if what == "rename" else 1
        what = f"{what} {key[:20]!r}"
    return f"{where} {what}", json.dumps(document)


def damaged(content: bytes, rng: Random) -> tuple[str, bytes]:
    """Damage the bytes of a file, as disks, editors and transfers do."""
    at = rng.randrange(len(content) + 1)
    lines = content.splitlines(keepends=True)
    line = rng.randrange(len(lines)) if lines else 0
    name = rng.choice([
        "cut", "cut", "byte 0xff", "byte 0", "random bytes", "flipped bit", "empty", "blank", "line twice", "line lost",
        "line end within", "marks", "carriage returns", "utf-16", "gzip", "all 0", "comma", "comment", "quotes",
    ])  # fmt: skip
    changed = {
        "cut": lambda: content[:at], "byte 0xff": lambda: content[:at] + b"\xff" + content[at:],
        "byte 0": lambda: content[:at] + b"\0" + content[at:],
        "random bytes": lambda: content[:at] + rng.randbytes(rng.randrange(1, 50)) + content[at:],
        "flipped bit": lambda: content[:at] + bytes(b ^ (1 << rng.randrange(8)) for b in content[at : at + 1]) + content[at + 1 :],
        "empty": lambda: b"", "blank": lambda: b"\n  \n\t\n",
        "line twice": lambda: content + (lines[line] if lines else b""),
        "line lost": lambda: b"".join(lines[:line] + lines[line + 1 :]),
        "line end within": lambda: content[:at] + b"\n" + content[at:],
        "marks": lambda: b"\xef\xbb\xbf" + b"\xef\xbb\xbf".join(lines),
        "carriage returns": lambda: content.replace(b"\n", b"\r\n"),
        "utf-16": lambda: content.decode(errors="replace").encode("utf-16"),
        "gzip": lambda: b"\x1f\x8b\x08" + content, "all 0": lambda: bytes(len(content)),
        "comma": lambda: content.replace(b"}", b",}"), "comment": lambda: b"// comment\n" + content,
        "quotes": lambda: content.replace(b'"', b"'"),
    }[name]()  # fmt: skip
    return f"{name} at {at}", changed
