"""`fewbits train`."""

import copy

import torch
from rich.console import Console
from torch import nn

from fewbits.cli.data import open_data
from fewbits.cli.opened import network_with_weights
from fewbits.cli.quantize import show
from fewbits.cli.verbs.train import Train
from fewbits.data.split import Split
from fewbits.errors import DataError
from fewbits.files import write_whole
from fewbits.lower.lower import lower
from fewbits.processes import Processes, joined
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


def train(asked: Train, console: Console) -> object:
    """The job of the verb. Under torchrun every process takes part, and the first alone tells and writes."""
    with joined(asked.device) as processes:
        return _train(asked, console if processes.writes else Console(quiet=True), processes)


def _train(asked: Train, console: Console, processes: Processes) -> object:
    where, network, out, seed = _device(asked.device), asked.network, asked.out, asked.seed
    task = resolve(network)
    in_float = asked.float_epochs if asked.weights is None else 0
    net = initialised(task.build, seed) if in_float else network_with_weights(
        task, asked.weights, seed, "it learns in few bits from there; the report's float column is its accuracy "
        "untrained")
    split, preparation = open_data(asked.data, asked, task.preparation, task.example_shape)
    normalize, batch_size = preparation.normalize, asked.batch_size
    if in_float:
        console.print(f"training {network} in float for {in_float} epochs")
        train_in_float(net, split.train, epochs=in_float, normalize=normalize, batch_size=batch_size, seed=seed)
    job = QuantizeJob(network, net, split, preparation, asked.recipe, asked.profile, out, batch_size,
                      show_plan=asked.plan, processor=asked.processor)
    learning = trainable(calibrated(job, console, norms="keep", processes=processes))
    lower(learning, asked.profile)  # what has no program is refused before anything is learned
    learning.to(where)
    teacher = Distillation(copy.deepcopy(net).eval().to(where), share=asked.distil) if asked.distil else None
    learned, held_out = _parted(split.train, asked.hold_out)
    scored = None if held_out is None else held_out.batches(batch_size, normalize)
    before = None if scored is None else 100 * evaluate(net, scored).mean
    if held_out is not None:
        console.print(f"{len(held_out)} training examples are held out, and scored after each epoch (float: "
                      f"{before:.2f} %)", highlight=False)
    told: list[Epoch] = []
    fit(learning, learned.batches(batch_size, normalize, torch.Generator().manual_seed(seed)), epochs=asked.epochs,
        optimizer=Adam(asked.rate), distillation=teacher, seed=seed, checkpoint=asked.checkpoint, on_epoch=told.append,
        evaluate=None if scored is None else lambda few: 100 * evaluate(_On(few, where), scored).mean,
        processes=processes)
    if not processes.writes:
        return None
    learning.to("cpu")
    write_whole(make_folder(out) / "history.json", history_json(before, told, "% of the held-out examples").encode())
    if scored is not None:
        curve(before, told, "% of the held-out examples").save(out / "history.svg")
    if any(isinstance(quantizer, AfterTraining) for quantizer in learning.quantizers()) and split.test.y is not None:
        reached = evaluate(learning, split.test.batches(batch_size, normalize)).mean
        console.print(f"with float activations, as published: {100 * reached:.2f} % of the test examples")
    return show(finish(job, calibrate_activations(learning, calibration(job)), console), out, console, asked.verbose)


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
