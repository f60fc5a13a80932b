"""`fewbits search`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verbs.shared import BatchOption, DataOption, EngineOption, Labelled, NetworkArgument, WeightsOption


@dataclass(frozen=True, kw_only=True)
class Search(Labelled):
    """Search the plan that costs least and keeps a limit; decided on training images, tested on the test images."""

    job = "fewbits.cli.search:search"
    examples = ("fewbits search lenet5 --weights lenet5.pt --data mnist:DIR --max-drop 0.5 --out build/search",)

    network: NetworkArgument
    data: DataOption
    out: Annotated[Path, typer.Option(help="Folder for plan.yaml, the front's plans, front.svg and the log")]
    weights: WeightsOption = None
    minimize: Annotated[str, typer.Option(
        help="bytes, bits, bops, energy, weight-memory or activation-memory; methods amp and ristretto have an aim of "
             "their own, and this only names the figure shown")] = "bytes"
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost")] = None
    min_sqnr: Annotated[float | None, typer.Option(help="dB that the outputs keep, in the mean")] = None
    max_flips: Annotated[float | None, typer.Option(help="Percent of the samples whose class may change")] = None
    weight_memory: Annotated[str | None, typer.Option(help="The most bytes of weights: 256k, 1M")] = None
    activation_memory: Annotated[str | None, typer.Option(help="The most bytes of activations at once: 64k")] = None
    menu: Annotated[str, typer.Option(help="Candidates: int, dfp, minifloat, pow2, nf4, joined by commas")] = "int"
    ranges: Annotated[str, typer.Option(help="Range rules that integers may take, joined by commas")] = "minmax,mse"
    repair: Annotated[str | None, typer.Option(
        help="Repairs of the winner, in place of the recipe's: adaround,bias-correction")] = None
    method: Annotated[str, typer.Option(help="solver, or for comparison greedy, amp or ristretto")] = "solver"
    recipe: Annotated[str, typer.Option(help="What is not searched: a preset or a YAML file")] = "w8a8"
    profile: Annotated[str, typer.Option(help="Whose integers: see docs/profiles.md")] = "onnxruntime"
    fine_tune: Annotated[str | None, typer.Option(
        help="Then train the winner as this recipe says: lsq-w4a4, qat-w8a8, … (methods; the formats stay)")] = None
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images of --fine-tune")] = 3
    rate: Annotated[float, typer.Option(min=0, help="Adam's learning rate of --fine-tune at first")] = 1e-3
    samples: Annotated[int, typer.Option(min=2, help="Training images that decide")] = 512
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure")] = 1
    scheduler: Annotated[str | None, typer.Option(help="A dask scheduler that measures: tcp://host:port")] = None
    batch_size: BatchOption = 64
    engine: EngineOption = "fastest"
    seed: Annotated[int, typer.Option(help="Of plans drawn at random; which images calibrate")] = 0

    @property
    def log(self) -> Path:
        """Of all evaluations, gone on from where it exists."""
        return self.out / "evaluations.jsonl"

    @property
    def fine_tuned(self) -> Path:
        """What `--fine-tune` writes."""
        return self.out / "fine-tuned"

    def resumed_from(self) -> list[Path]:
        return [self.log]
