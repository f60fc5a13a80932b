"""Peak memory of each step on large networks: `python -m benchmarks.memory`, or of some: `--network stack-100m`.

Each step runs in a process of its own, behind the same step on a small network, so that what is imported does not
count. What counts is the largest resident set while it runs, less that before it begins, with what it is given in
memory: the float network for capture to lower, the program for save and export. The bars: 1.6 times the float weights,
and 1.5 times the file that is written or read and 200 MB.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

import fewbits as fb

MEGABYTE = 10**6
STEPS = ("lower", "save", "load", "export")


class Block(nn.Module):
    """A transformer's, as in ViT-B."""

    def __init__(self, width: int = 768, heads: int = 12):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.given, self.taken = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for part in self.given(self.norm1(x)).chunk(3, -1))
        shares = (q @ k.transpose(-1, -2) / 8).softmax(-1)
        x = x + self.taken((shares @ v).transpose(1, 2).flatten(2))
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))


class Vit(nn.Module):
    """ViT-B/16 behind its patches: 196 of 768 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Linear(768, 768), nn.Sequential(*(Block() for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(768), nn.Linear(768, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.patches(x))).mean(1))


def stack(layers: int) -> nn.Module:
    """Square layers of 4096, 16.8 million weights each."""
    return nn.Sequential(*(one for _ in range(layers) for one in (nn.Linear(4096, 4096), nn.ReLU())))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "stack-100m": (lambda: stack(6), (4, 4096)), "stack-300m": (lambda: stack(18), (4, 4096)),
    "vit-b": (Vit, (2, 196, 768)),
    "small": (lambda: nn.Sequential(nn.Linear(16, 16), nn.ReLU()), (4, 16)),
}


def _resident(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes that the resident set grew to beyond what it was."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    run()
    return _resident("VmHWM") - before


def lowered(name: str, folder: Path) -> dict[str, Any]:
    """From the network to the program, which is saved behind it."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    with torch.no_grad():
        net, x = make().eval(), torch.rand(shape)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    held: list[fb.QuantizedModel] = []

    def run() -> None:
        model = fb.fold(fb.capture(net, x))
        held.append(fb.lower(fb.calibrate(model, fb.plan(model, "w8a8"), [x])))

    peak = peak_of(run)
    held[0].save(folder / "model.fewbits")
    return {"peak": peak, "of": weights, "bar": 1.6 * weights}


def saved(name: str, folder: Path) -> dict[str, Any]:
    """The program, written and read back."""
    model = fb.load(folder / "model.fewbits")
    peak = peak_of(lambda: model.save(folder / "again.fewbits"))
    return _against(peak, folder / "model.fewbits")


def loaded(name: str, folder: Path) -> dict[str, Any]:
    """The file, ready to run on the default engine."""
    return _against(peak_of(lambda: fb.load(folder / "model.fewbits")), folder / "model.fewbits")


def exported(name: str, folder: Path) -> dict[str, Any]:
    """The program as ONNX, verified in ONNX Runtime."""
    model, shape = fb.load(folder / "model.fewbits"), NETWORKS[name][1]
    peak = peak_of(lambda: fb.export_onnx(model, folder / "model.onnx", [torch.rand(shape)]))
    return _against(peak, folder / "model.onnx")


def _against(peak: int, file: Path) -> dict[str, Any]:
    size = sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*"))
    return {"peak": peak, "of": size, "bar": 1.5 * size + 200 * MEGABYTE}


Step = Callable[[str, Path], dict[str, Any]]
RUN: dict[str, Step] = dict(zip(STEPS, (lowered, saved, loaded, exported), strict=True))


def main(
    network: Annotated[str | None, typer.Option(help="Only this one")] = None,
    step: Annotated[str | None, typer.Option(help="Only this one, in this process, in --folder")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where files lie")] = None,
) -> None:
    if step is not None:
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as small:
            for each in STEPS:
                RUN[each]("small", Path(small))
        print(json.dumps(RUN[step](network or "", folder or Path())))
        return
    for name in [*NETWORKS][:-1] if network is None else (network,):
        with tempfile.TemporaryDirectory() as place:
            for each in STEPS:
                command = [sys.executable, "-m", "benchmarks.memory", "--network", name, "--step", each, "--folder",
                           place]
                told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
                peak, of, bar = (told[key] / MEGABYTE for key in ("peak", "of", "bar"))
                what, missed = "float weights" if each == "lower" else "file", "" if peak <= bar else ": MISSED"
                print(f"{name}, {each}: {peak:.0f} MB, {what} {of:.0f} MB, bar {bar:.0f} MB{missed}", flush=True)


if __name__ == "__main__":
    typer.run(main)
