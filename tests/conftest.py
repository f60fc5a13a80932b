"""What all tests share: the real data beside the checkout, few threads, `called` (importlib mode puts no folder on the
path), and a last line that says which processor they ran on."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from fewbits.engines.processor import this_processor

sys.path.append(str(Path(__file__).parent))
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start: two threads may add in another order
os.environ["FEWBITS_CACHE"] = ""  # which engine was the fastest is not kept
# How long an example takes is the machine's affair: a busy one must not fail a property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_terminal_summary(terminalreporter):
    """ONNX Runtime's kernels differ between processors: a green suite is green on this one."""
    here = this_processor()
    kind = ("adds products of 8-bit codes in pairs of 16 bits (no VNNI)" if here.adds_pairs_in_16_bits
            else "adds products of 8-bit codes in 32 bits")
    terminalreporter.write_line(f"processor: {here}: onnxruntime {kind}" if here.is_x86 else f"processor: {here}")


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
