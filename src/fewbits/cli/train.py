"""`fewbits train`."""

import copy
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from torch import nn

from fewbits.cli.data import (
    BatchOption,
    BgrOption,
    DataOption,
    DivideOption,
    Given,
    MeanOption,
    OffsetOption,
    StdOption,
    open_data,
)
from fewbits.cli.opened import network_with_weights
from fewbits.cli.processor import ProcessorOption
from fewbits.cli.quantize import show
from fewbits.data.split import Split
from fewbits.errors import DataError
from fewbits.files import write_whole
from fewbits.lower.lower import lower
from fewbits.report.accuracy import evaluate
from fewbits.report.history import curve, history_json
from fewbits.tasks.registry import resolve
from fewbits.tasks.training import initialised
from fewbits.tasks.training import train as train_in_float
from fewbits.train.after_training import AfterTraining, calibrate_activations
from fewbits.train.distillation import Distillation
from fewbits.train.fit import Adam, Epoch, fit
from fewbits.train.registry import trainable
from fewbits.workflow.quantize import QuantizeJob, calibrated, calibration, finish, make_folder


def train(
    network: Annotated[str, typer.Argument(help="lenet5, resnet20, …, or package.module:factory")],
    data: DataOption,
    recipe: Annotated[str, typer.Option(help="lsq-w4a4, qat-w8a8, bnn, twn, …, or a YAML file that names methods")],
    out: Annotated[Path, typer.Option(help="Folder for model.fewbits, model.onnx, report.html, summary.json")],
    epochs: Annotated[int, typer.Option(help="Passes over the training examples in few bits")] = 5,
    weights: Annotated[Path | None, typer.Option(help="Weights to begin with, as for quantize")] = None,
    float_epochs: Annotated[int, typer.Option(help="Passes in float first, where there are no weights")] = 0,
    rate: Annotated[float, typer.Option(min=0, help="Adam's learning rate at first; it falls along a cosine")] = 1e-3,
    distil: Annotated[float, typer.Option(help="Share of the loss that follows the float network's outputs")] = 0.0,
    profile: Annotated[str, typer.Option(help="onnxruntime or onnxruntime-portable")] = "onnxruntime",
    mean: MeanOption = None,
    std: StdOption = None,
    divide: DivideOption = None,
    bgr: BgrOption = None,
    label_offset: OffsetOption = None,
    batch_size: BatchOption = 64,
    seed: Annotated[int, typer.Option(help="Of initial weights, order of examples, and chance in methods")] = 0,
    device: Annotated[str, typer.Option(help="cpu, or cuda where there is one")] = "cpu",
    hold_out: Annotated[int, typer.Option(
        min=0, help="The last so many training examples, a tenth at most, are scored and not trained on")] = 1000,
    checkpoint: Annotated[Path | None, typer.Option(help="Written after each epoch; goes on from it")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what becomes of every tensor first")] = False,
    processor: ProcessorOption = "any",
) -> None:
    """Train a network in few bits, lower it to integers, verify it, and write it with a report."""
    console = Console()
    where = _device(device)
    task = resolve(network)
    net = initialised(task.build, seed) if float_epochs and weights is None else network_with_weights(
        task, weights, seed, "it learns in few bits from there; the report's float column is its accuracy untrained")
    split, preparation = open_data(data, Given(mean, std, divide, bgr, label_offset), task.preparation,
                                   task.example_shape)
    normalize = preparation.normalize
    if float_epochs and weights is None:
        console.print(f"training {network} in float for {float_epochs} epochs")
        train_in_float(net, split.train, epochs=float_epochs, normalize=normalize, batch_size=batch_size, seed=seed)
    job = QuantizeJob(network, net, split, preparation, recipe, profile, out, batch_size, show_plan=plan,
              processor=processor)
    learning = trainable(calibrated(job, console, norms="keep"))
    lower(learning, profile)  # what has no program is refused before anything is learned
    learning.to(where)
    teacher = Distillation(copy.deepcopy(net).eval().to(where), share=distil) if distil else None
    learned, held_out = _parted(split.train, hold_out)
    scored = None if held_out is None else held_out.batches(batch_size, normalize)
    before = None if scored is None else 100 * evaluate(net, scored).mean
    if held_out is not None:
        console.print(f"{len(held_out)} training examples are held out, and scored after each epoch (float: "
                      f"{before:.2f} %)", highlight=False)
    told: list[Epoch] = []
    fit(learning, learned.batches(batch_size, normalize, torch.Generator().manual_seed(seed)), epochs=epochs,
        optimizer=Adam(rate), distillation=teacher, seed=seed, checkpoint=checkpoint, on_epoch=told.append,
        evaluate=None if scored is None else lambda few: 100 * evaluate(_On(few, where), scored).mean)
    learning.to("cpu")
    write_whole(make_folder(out) / "history.json", history_json(before, told, "% of the held-out examples").encode())
    if scored is not None:
        curve(before, told, "% of the held-out examples").save(out / "history.svg")
    if any(isinstance(quantizer, AfterTraining) for quantizer in learning.quantizers()) and split.test.y is not None:
        reached = evaluate(learning, split.test.batches(batch_size, normalize)).mean
        console.print(f"with float activations, as published: {100 * reached:.2f} % of the test examples")
    show(finish(job, calibrate_activations(learning, calibration(job)), console), out, console)


def _parted(train: Split, hold_out: int) -> tuple[Split, Split | None]:
    """What is trained on, and what is held out of it; None where nothing is, or there are no labels."""
    count = min(hold_out, len(train) // 10)
    if not count or train.y is None:
        return train, None
    return train.take(len(train) - count), train.subset(range(len(train) - count, len(train)))


class _On(nn.Module):
    """A network on a device, for inputs from the CPU."""

    def __init__(self, net: nn.Module, device: torch.device):
        super().__init__()
        self.net, self.device = net, device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.to(self.device)).cpu()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise DataError("there is no cuda device here: leave --device out")
    if name not in ("cpu", "cuda"):
        raise DataError(f"no device is called {name!r}: choose cpu or cuda")
    return torch.device(name)
