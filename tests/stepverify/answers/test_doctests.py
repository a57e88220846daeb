"""The examples in the docstrings of the grader are what it gives."""

import doctest
import importlib
import pkgutil

import pytest

import stepverify.answers


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(stepverify.answers.__path__)])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"stepverify.answers.{name}")).failed == 0
