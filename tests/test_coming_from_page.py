"""docs/coming-from.md: its code runs as it stands, and what it names exists."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.cli.verb import name_of
from fewbits.cli.verbs import ALL
from fewbits.quant.presets import presets

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "coming-from.md").read_text()


def test_its_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    batches = [torch.randn(16, 1, 8, 8) for _ in range(3)]
    names = {"net": net, "example": batches[0], "batches": batches,
             "loader": [(x, torch.randint(0, 10, (16,))) for x in batches]}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        exec(block, names)
    assert (tmp_path / "net.onnx").exists()
    assert (tmp_path / "net.encodings").exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bfb\.(\w+)", PAGE))))
def test_its_names_are_public(name):
    assert hasattr(fb, name)


def test_its_verbs_presets_and_pages_exist():
    verbs = {name_of(verb) for verb in ALL}
    assert set(re.findall(r"`fewbits ([a-z-]+)", PAGE)) <= verbs
    for preset in ("w8a8", "w4a8", "w8a8-per-tensor", "w8a8-symmetric", "w8a8-entropy", "qat-w8a8", "lsq-w4a4", "w8",
                   "w4-g128", "dynamic-w8a8", "w7a8"):
        assert f"`{preset}`" in PAGE or f'"{preset}"' in PAGE
        assert preset in presets()
    for page in re.findall(r"\]\(([a-z-]+\.md)\)", PAGE):
        assert (DOCS / page).exists(), page
