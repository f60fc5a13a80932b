"""The examples in the docstrings of the functions of one tensor."""

import doctest
import importlib
import pkgutil

import pytest

import fewbits.tensors

NAMES = [module.name for module in pkgutil.iter_modules(fewbits.tensors.__path__)]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(f"fewbits.tensors.{name}"))
    assert result.attempted
    assert not result.failed
