"""Every file of `corpus/` is refused in one sentence, in little time and memory; README.md says what each tries."""

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fewbits.artifact.file import read
from fewbits.artifact.weights import WeightsFile
from fewbits.capture.capture import capture
from fewbits.data.images import USUAL_CROP, Images
from fewbits.data.readers import read_idx, read_npz
from fewbits.data.weights import load_weights
from fewbits.errors import FewbitsError
from fewbits.export.described import description
from fewbits.pt2.pt2 import read_pt2
from fewbits.quant.recipe import recipe

FOLDER = Path(__file__).parent
ROWS = dict(re.findall(r"^\| `([^`]+)` \| .* \| “(.+)” \|$", (FOLDER / "README.md").read_text(encoding="utf-8"),
                       re.MULTILINE))
READ: dict[str, Callable[[Path], Any]] = {
    ".yaml": recipe, ".png": lambda path: Images((path,), USUAL_CROP).read(), ".idx": read_idx, ".gz": read_idx,
    ".npz": read_npz, ".bin": load_weights, ".pt": load_weights,
    ".fewbits": lambda path: WeightsFile(path).state_dict(),
    ".onnx": description, ".pt2": lambda path: capture(read_pt2(path), torch.rand(2, 4))}


def test_the_readme_has_a_row_for_every_file():
    assert set(ROWS) == {path.name for path in (FOLDER / "corpus").iterdir()}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_refused(name):
    if name.endswith(".png"):
        pytest.importorskip("PIL")
    path = FOLDER / "corpus" / name
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(FewbitsError) as caught:
        READ[path.suffix](path)
    took, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ROWS[name] in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert took < 10 and peak < 2e8, f"{took} s, {peak} bytes"


def listed(file: WeightsFile) -> Any:
    return file.items(), file.bounds(), file.shapes(), [file.coding(name) for name in file.names]


@pytest.mark.parametrize("name", [name for name in sorted(ROWS) if name.endswith(".fewbits")])
def test_what_lists_the_bytes_of_a_file_does_not_break_either(name):
    path = FOLDER / "corpus" / name
    with pytest.raises(FewbitsError):
        read(path)
    with pytest.raises(FewbitsError) as caught:
        listed(WeightsFile(path))
    assert "disk" not in str(caught.value) and "permission" not in str(caught.value)
