"""How tests stand to each other: none imports another, and none is long."""

import ast

import pytest

LINES = 300


def modules(root):
    return sorted((root / "tests").rglob("*.py"))


def is_test(name):
    """Tell names of test modules, and of what is in them, from those of helpers."""
    first, *rest = name.split(".")
    return first == "tests" and rest[:1] != ["helpers"] and any(part.startswith("test_") for part in rest)


def foreign(text, own):
    """Test modules other than ``own`` that a text imports or names, also in the programs and class paths inside strings."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{own}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "tests." in node.value:
            found |= {word.strip(".,:;()[]{}'\"`") for word in node.value.split()}
    return sorted(name for name in found if is_test(name) and not f"{name}.".startswith(f"{own}."))


def test_no_test_is_imported_from_another(root):
    """What several tests use lies in ``tests/helpers/``."""
    found = {}
    for path in modules(root):
        own = ".".join(path.relative_to(root).with_suffix("").parts)
        if names := foreign(path.read_text(), own):
            found[own] = names
    assert not found


def test_a_file_of_tests_has_at_most_300_lines(root):
    long = {str(path.relative_to(root)): n for path in modules(root) if (n := path.read_text().count("\n")) > LINES}
    assert not long


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("def f():\n    from here.a.test_b import c", ["here.a.test_b.c"]),
        ("import here.test_b as b, os", ["here.test_b"]),
        ("from here.a import test_b, helper", ["here.a.test_b"]),
        ("x = '''import sys\nfrom here.a.test_b import c'''", ["here.a.test_b"]),
        ("x = {'class_path': 'here.a.test_b.C'}", ["here.a.test_b.C"]),
        ("x = f'- class_path: here.a.test_b.C\\n  {1}'", ["here.a.test_b.C"]),
        ("from here.helpers.a import test_model\nfrom here.own.test_own import c\nx = 'here.own.test_own.C'", []),
        ("from here.own.test_owner import c", ["here.own.test_owner.c"]),
    ],
)
def test_the_check_above_sees_every_kind_of_import(text, names):
    """``here`` stands for ``tests``, so that this file passes."""
    text, own = (part.replace("here.", "tests.") for part in (text, "here.own.test_own"))
    found = foreign(text, own)
    assert [name.replace("tests.", "here.") for name in found] == names
