"""`fewbits quantize` and `fewbits demo`."""

from pathlib import Path

from rich.console import Console
from torch import nn

from fewbits.cli.data import open_data
from fewbits.cli.opened import network_with_weights
from fewbits.cli.verbs.quantize import Demo, Quantize
from fewbits.data.normalize import DIGITS
from fewbits.data.preparation import Preparation
from fewbits.data.sets import load
from fewbits.engines.registry import engine as engine_of
from fewbits.quant.presets import DEFAULT_RECIPE
from fewbits.report.report import Report
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.registry import resolve
from fewbits.tasks.stand_in import stand_in
from fewbits.tasks.training import initialised, train
from fewbits.workflow.quantize import QuantizeJob, run

_DEMO_EPOCHS, _DEMO_SEED = 30, 0


def quantize(asked: Quantize, console: Console) -> object:
    """The job of the verb."""
    chosen, task = engine_of(asked.engine), resolve(asked.network)
    net = network_with_weights(task, asked.weights)
    split, preparation = (stand_in(task), task.preparation) if asked.data is None else open_data(
        asked.data, asked, task.preparation, task.example_shape)
    job = QuantizeJob(asked.network, net, split, preparation, asked.recipe, asked.profile, asked.out, asked.batch_size,
              asked.seed, asked.plan, asked.cache, asked.explain, made_up=asked.data is None, processor=asked.processor,
              repairs=tuple(asked.repair or ()),
              engine=chosen)
    return show(run(job, console), asked.out, console, asked.verbose)


def demo(asked: Demo, console: Console) -> object:
    """The job of the verb."""
    data = load("digits")
    console.print(f"training a small residual network on {len(data.train)} handwritten digits")
    net: nn.Module = initialised(digits_net, _DEMO_SEED)
    train(net, data.train, epochs=_DEMO_EPOCHS, normalize=DIGITS, seed=_DEMO_SEED)
    job = QuantizeJob("digits_net", net, data, Preparation(DIGITS), DEFAULT_RECIPE, "onnxruntime", asked.out,
                      explain=True)
    return show(run(job, console), asked.out, console, asked.verbose)


def show(report: Report, out: Path, console: Console, verbose: bool) -> object:
    """Prints a report, all of it or a screenful, and where the files are; returns what JSON says of it."""
    report.render(console, verbose=verbose)
    files = [out / name for name in ("model.fewbits", "model.onnx", "report.html", "summary.json")]
    written = [path for path in files if path.exists()]
    console.print(f"written: {out}/{', '.join(path.name for path in written)}", highlight=False)
    told = report.to_dict() if verbose else report.summary()
    return {"files": written, **told}
