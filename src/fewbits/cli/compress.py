"""`fewbits compress` and `fewbits decompress`."""

import re
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

from fewbits.artifact.into_network import read_weights
from fewbits.artifact.weights import WeightsFile, save_weights
from fewbits.cli.data import BgrOption, DivideOption, Given, MeanOption, OffsetOption, StdOption, open_data
from fewbits.compress.share import Shared, share
from fewbits.data.weights import load_weights
from fewbits.errors import DataError
from fewbits.files import write_whole
from fewbits.progress import track
from fewbits.tasks.registry import resolve
from fewbits.tasks.training import initialised
from fewbits.workflow.compress import CompressJob, Goal, run

_FEW = 512  # weights: below, a codebook costs about what it saves
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".th")


def compress(
    source: Annotated[str, typer.Argument(help="A weights file; or, with --data, a network as for quantize")],
    out: Annotated[Path, typer.Option(help="The .fewbits file to write")],
    weights: Annotated[Path | None, typer.Option(help="With --data: the trained network's weights")] = None,
    data: Annotated[str | None, typer.Option(help="Prune, retrain and tune on digits | mnist:DIR | cifar10:DIR | "
                                                  "npz:FILE")] = None,
    target_size: Annotated[str | None, typer.Option(help="How many times smaller than the float tensors: 40x")] = None,
    max_drop: Annotated[float | None, typer.Option(help="With --data: percentage points of accuracy that may be "
                                                        "lost on the validation images")] = None,
    bits: Annotated[int, typer.Option(min=1, max=8, help="Without --data: 2^bits values a tensor")] = 5,
    per_channel: Annotated[bool, typer.Option("--per-channel", help="Without --data: a codebook a channel")] = False,
    lossless: Annotated[bool, typer.Option("--lossless", help="Without --data: every bit is kept")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="With --data: epochs of each attempt")] = 12,
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    seed: Annotated[int, typer.Option(help="Order of the training images")] = 0,
) -> None:
    """Write weights in few bytes: shared and coded; with --data also pruned and retrained."""
    console = Console()
    ratio = _ratio(target_size)
    if data is not None:
        if weights is None:
            raise DataError("--data trains on from a trained network: give its --weights")
        task = resolve(source)
        net = initialised(task.build, seed=0)
        read_weights(net, weights)
        given = Given(mean, std, divide, bgr, label_offset)
        split, preparation = open_data(data, given, task.preparation, task.example_shape)
        goal = Goal(ratio, max_drop if max_drop is not None or ratio is not None else 0.1)
        run(CompressJob(source, net, split, preparation.normalize, goal, out, epochs, seed), console)
    else:
        if max_drop is not None:
            raise DataError("--max-drop is measured on labelled images: give --data")
        _without_data(load_weights(_weight_file(source)), ratio, bits, per_channel, lossless, out)
    show(out, console)


def decompress(
    file: Annotated[Path, typer.Argument(help="A .fewbits file of compressed weights")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write")],
) -> None:
    """Write the float tensors of a compressed file as safetensors."""
    held = WeightsFile(file)
    state = {name: held.tensor(name) for name in track(held.names, "decode")}
    write_whole(out, save(state))
    Console().print(f"{out}: {len(state)} tensors, {out.stat().st_size} bytes", highlight=False)


def show(path: Path, console: Console) -> None:
    """Where each byte of a file of compressed weights goes."""
    file = WeightsFile(path)
    bounds, decoded = file.bounds(), file.decoded_bytes()
    table = Table("tensor", "part", "bytes", "share", title=f"{path}: {file.size} bytes, {decoded} when decoded, "
                                                           f"{decoded / file.size:.1f}x smaller")
    for item in file.items():
        table.add_row(item.layer or "(file)", item.part, str(item.bytes), f"{100 * item.bytes / file.size:.1f} %")
    table.add_row("", "sum", str(sum(item.bytes for item in file.items())), "100 %", end_section=True)
    console.print(table)
    for name in file.names:
        entropy = f"; entropy {bounds[name]:.0f} bytes" if name in bounds else ""
        console.print(f"{name}: {file.coding(name)}{entropy}", highlight=False, markup=False)


def _without_data(state: dict[str, Tensor], ratio: float | None, bits: int, per_channel: bool, lossless: bool,
                  out: Path) -> None:
    decoded = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if lossless or ratio is None:
        size = save_weights(state, out, {} if lossless else _shared(state, bits, per_channel))
        if ratio is not None and decoded / size < ratio:
            raise DataError(f"{out} is {decoded / size:.1f}x smaller, not {ratio:g}x: leave out --lossless")
        return
    size = decoded
    for width in range(8, 0, -1):
        size = save_weights(state, out, _shared(state, width, per_channel))
        if decoded / size >= ratio:
            return
    raise DataError(f"without data {out} becomes at most {decoded / size:.1f}x smaller, not {ratio:g}x: "
                    "give --data, so that it can be pruned")


def _shared(state: dict[str, Tensor], bits: int, per_channel: bool) -> dict[str, Shared]:
    shared = {}
    for name, tensor in track(list(state.items()), f"share, {bits} bits"):
        if tensor.is_floating_point() and tensor.ndim > 1 and tensor.numel() >= _FEW:
            values = tensor.detach().to(torch.float32).numpy()
            mask = values != 0
            group = values[0].size if per_channel else None
            shared[name] = share(values, 2**bits, mask=None if mask.all() else mask, group=group)
    return shared


def _weight_file(source: str) -> Path:
    path = Path(source)
    if path.suffix not in _WEIGHT_FILES:
        raise DataError(f"{source!r} is no weights file ({', '.join(_WEIGHT_FILES)}): to compress a network, "
                        "give --data and --weights")
    return path


def _ratio(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)x?", text.strip())
    if match is None or float(match[1]) <= 0:
        raise DataError(f"--target-size {text!r} is no ratio: write 40x")
    return float(match[1])
