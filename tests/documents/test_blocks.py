"""Every code block of README and docs/ runs: Python with the names of conftest.py, commands on small made-up data."""

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fewbits as fb
from fewbits.cli.main import run
from fewbits.cli.verbs import ALL
from fewbits.documents.commands import document
from fewbits.tasks.lenet import lenet5

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = {"python", "pycon", "yaml", "console", "text"}
NOT_RUN = {
    "make": "installs, or runs what runs this test",
    "fewbits demo": "tests/cli/test_demo.py runs it",
    "fewbits compress lenet5 --weights": "prunes and retrains for minutes; tests/cli/test_compress.py runs a small one",
    "fewbits reproduce twn": "trains for minutes; tests/reproduce runs small rows",
    "fewbits lab": "trains for a minute; tests/notebook runs the cells",
}

ALLOWED = (
    "misses it by",  # no plan keeps a limit of accuracy on networks and pictures made of random numbers
    "there is no native library here",  # where there was no compiler
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        opened, lines = None, page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if line.startswith("```"):
                if opened is None:
                    opened = number
                else:
                    found.append(Block(page, opened, lines[opened - 1][3:], "\n".join(lines[opened:number - 1])))
                    opened = None
        assert opened is None, f"{page} opens a block and does not close it"
    return found


BLOCKS = blocks()
DRAWINGS = {"docs/architecture.md": "the way of the data, drawn: no output of anything"}
BY_HAND = {"api.md"}  # its blocks are those of tests/documents/test_api.py


def of_kind(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds and block.page.name not in BY_HAND]


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in BLOCKS if block.kind not in KINDS] == []


def test_text_shows_no_output_that_nothing_compares() -> None:
    """Output stands behind `>>>` in `pycon` blocks, which are compared; of `text` there are drawings and, in api.md,
    which test_api.py makes anew, signatures."""
    pages = {str(block.page.relative_to(ROOT)) for block in of_kind("text")}
    assert pages == set(DRAWINGS)


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_python(block: Block, given) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = self.head(self.backbone(x))
            return scores[scores > scores.mean()]

    fb.save_encodings(given["sim"], "net.encodings")
    exec(compile(block.text, str(block), "exec"), {**given, "detector": Detector().eval()})


@pytest.mark.parametrize("block", of_kind("pycon"), ids=str)
def test_sessions(block: Block, given) -> None:
    parsed = doctest.DocTestParser().get_doctest(block.text, given, str(block), None, None)
    assert doctest.DocTestRunner().run(parsed).failed == 0


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_recipes(block: Block, tmp_path: Path) -> None:
    """A recipe, or the part of one that a page is about."""
    text = block.text if "version:" in block.text else f"version: 1\n{block.text}"
    (tmp_path / "recipe.yaml").write_text(text)
    assert fb.recipe(tmp_path / "recipe.yaml").version == 1


def commands(block: Block) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", block.text)
    words = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [" ".join(each) for each in words if each]


def reason(command: str) -> str | None:
    return next((why for head, why in NOT_RUN.items() if command.startswith(head)), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A user's folder: what the commands of the pages name."""
    here = tmp_path_factory.mktemp("pages")
    (here / "mynet.py").write_text(
        "from torch import nn\n\n\nclass MyNet(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))\n")
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    torch.save(mine.state_dict(), here / "net.pt")
    torch.save(lenet5().state_dict(), here / "lenet5.pt")
    save_file(lenet5().state_dict(), here / "net.safetensors")
    rng = np.random.default_rng(0)
    np.savez(here / "data.npz", x=rng.integers(0, 256, (64, 8, 8), dtype=np.uint8), y=np.arange(64) % 10)
    (here / "mnist").mkdir()
    splits = {"train": 160, "test": 40}
    np.savez(here / "mnist/mnist.npz",
             **{f"{split}_x": rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for split, count in splits.items()},
             **{f"{split}_y": np.arange(count, dtype=np.uint8) % 10 for split, count in splits.items()})
    return here


def typed(command: str, folder: Path) -> list[str]:
    return ["fewbits", *(part.replace("mnist:DIR", f"mnist:{folder / 'mnist'}") for part in shlex.split(command)[1:])]


@pytest.mark.parametrize("page", sorted({block.page for block in of_kind("console")}), ids=lambda page: page.name)
def test_commands(page: Path, folder: Path, monkeypatch, tmp_path, capsys) -> None:
    """In their order, in one folder, as a reader would type them."""
    shutil.copytree(folder, tmp_path / "user")
    monkeypatch.chdir(tmp_path / "user")
    lines = [line for block in of_kind("console") if block.page == page for line in commands(block)]
    assert lines
    for line in lines:
        if reason(line) is not None:
            continue
        assert line.startswith("fewbits "), f"{line!r} of {page.name} is no command of ours: give NOT_RUN a reason"
        monkeypatch.setattr(sys, "argv", typed(line, folder))
        try:
            run()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        shown = capsys.readouterr()
        assert code == 0 or any(allowed in shown.err for allowed in ALLOWED), f"{line}\n{shown.err}"


def test_the_page_of_commands_is_not_stale() -> None:
    assert (ROOT / "docs/commands.md").read_text(encoding="utf-8") == document(), (
        "docs/commands.md is stale: python -m fewbits.documents.commands > docs/commands.md")


def test_what_is_not_run_is_there_and_has_a_reason() -> None:
    lines = [line for block in of_kind("console") for line in commands(block)]
    for head in NOT_RUN:
        assert any(line.startswith(head) for line in lines), f"{head!r} stands in no page any more"
    assert {example for verb in ALL for example in verb.examples} <= set(lines)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200


def test_a_new_user_gets_there_in_few_commands(folder: Path, tmp_path: Path) -> None:
    """The README's own network, from an empty folder, in a process of its own: quantized, exported, plotted."""
    lines = [line for block in of_kind("console") if block.page.name == "README.md" for line in commands(block)]
    lines = [line for line in lines if reason(line) is None]
    assert len(lines) < 8
    for name in ("mynet.py", "net.pt", "data.npz"):
        shutil.copy(folder / name, tmp_path)
    done = subprocess.run([sys.executable, "-m", "fewbits", *shlex.split(lines[0])[1:]], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert {path.name for path in (tmp_path / "build/mine").iterdir()} == {
        "model.fewbits", "model.onnx", "report.html", "summary.json"}
