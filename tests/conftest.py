"""What all tests share: the real data beside the checkout, few threads, and `called` (importlib mode puts no folder on
the path)."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with real data and weights."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def golden():
    """Expected values of one section, as tests/golden/<section>.json holds them."""
    folder = Path(__file__).parent / "golden"

    def read(section: str) -> dict:
        return json.loads((folder / f"{section}.json").read_text())

    return read
