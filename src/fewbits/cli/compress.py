"""`fewbits compress` and `fewbits decompress`."""

import re
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

from fewbits.artifact.into_network import read_weights
from fewbits.artifact.weights import WeightsFile, save_weights
from fewbits.cli.data import open_data
from fewbits.cli.verbs.compress import Compress, Decompress
from fewbits.compress.share import Shared, share
from fewbits.data.weights import load_weights
from fewbits.errors import DataError
from fewbits.files import write_whole
from fewbits.progress import track
from fewbits.report.pictures import compressed
from fewbits.tasks.registry import resolve
from fewbits.tasks.training import initialised
from fewbits.workflow.compress import CompressJob, Goal, run

_FEW = 512  # weights: below, a codebook costs about what it saves
_WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".th")


def compress(asked: Compress, console: Console) -> object:
    """The job of the verb."""
    source, out, weights, data = asked.source, asked.out, asked.weights, asked.data
    ratio = _ratio(asked.target_size)
    if data is not None:
        if weights is None:
            raise DataError("--data trains on from a trained network: give its --weights")
        task = resolve(source)
        net = initialised(task.build, seed=0)
        read_weights(net, weights)
        split, preparation = open_data(data, asked, task.preparation, task.example_shape)
        goal = Goal(ratio, asked.max_drop if asked.max_drop is not None or ratio is not None else 0.1)
        state = {}  # the trained network's weights moved: they are not what was shared
        run(CompressJob(source, net, split, preparation.normalize, goal, out, asked.epochs, asked.seed), console)
    else:
        if asked.max_drop is not None:
            raise DataError("--max-drop is measured on labelled images: give --data")
        state = load_weights(_weight_file(source))
        _without_data(state, ratio, asked.bits, asked.per_channel, asked.lossless, out)
    told = show(out, console)
    if asked.plot is not None:
        compressed(WeightsFile(out), state).save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    return told


def decompress(asked: Decompress, console: Console) -> object:
    """The job of the verb."""
    held, out = WeightsFile(asked.file), asked.out
    state = {name: held.tensor(name) for name in track(held.names, "decode")}
    write_whole(out, save(state))
    console.print(f"{out}: {len(state)} tensors, {out.stat().st_size} bytes", highlight=False)
    shapes = {name: list(each.shape) for name, each in state.items()}
    return {"out": out, "bytes": out.stat().st_size, "tensors": shapes}


def show(path: Path, console: Console) -> object:
    """Where each byte of a file of compressed weights goes, printed; and returned for JSON."""
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
    return {"file": path, "bytes": file.size, "decoded_bytes": decoded, "items": file.items(), "tensors": {
        name: {"coding": file.coding(name), "entropy_bytes": bounds.get(name)} for name in file.names}}


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
