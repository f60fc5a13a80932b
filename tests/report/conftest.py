"""Makes `report_cases` importable (importlib mode puts no folder on the path), and its networks fixtures."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_cases import Case, Everything, Residual, lowered, made


@pytest.fixture(scope="session")
def residual() -> Case:
    return lowered(*made(Residual, 16, 2, 6, 6))


@pytest.fixture(scope="session")
def everything() -> Case:
    """Not folded, so that operators which do nothing are still in the graph."""
    return lowered(*made(Everything, 4, 4, 8, 8), folded=False)
