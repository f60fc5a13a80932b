"""`fewbits compress` and `fewbits decompress`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fewbits.cli.verb import Verb
from fewbits.cli.verbs.shared import Labelled, picture_option


@dataclass(frozen=True, kw_only=True)
class Compress(Labelled):
    """Write weights in few bytes: shared and coded; with --data also pruned and retrained."""

    job = "fewbits.cli.compress:compress"
    examples = ("fewbits compress net.safetensors --bits 5 --out net.fewbits",
                "fewbits compress lenet5 --weights lenet5.pt --data mnist:DIR --target-size 40x --out lenet5.fewbits")

    source: Annotated[str, typer.Argument(help="A weights file; or, with --data, a network as for quantize")]
    out: Annotated[Path, typer.Option(help="The .fewbits file to write")]
    weights: Annotated[Path | None, typer.Option(help="With --data: the trained network's weights")] = None
    data: Annotated[str | None, typer.Option(help="Prune, retrain and tune on digits | mnist:DIR | cifar10:DIR | "
                                                  "npz:FILE")] = None
    target_size: Annotated[str | None, typer.Option(help="How many times smaller than the float tensors: 40x")] = None
    max_drop: Annotated[float | None, typer.Option(help="With --data: percentage points of accuracy that may be "
                                                        "lost on the validation images")] = None
    bits: Annotated[int, typer.Option(min=1, max=8, help="Without --data: 2^bits values a tensor")] = 5
    per_channel: Annotated[bool, typer.Option("--per-channel", help="Without --data: a codebook a channel")] = False
    lossless: Annotated[bool, typer.Option("--lossless", help="Without --data: every bit is kept")] = False
    plot: Annotated[Path | None, picture_option(
        "Draw sizes, shared values and how often codes and gaps occur to this SVG file")] = None
    epochs: Annotated[int, typer.Option(min=1, help="With --data: epochs of each attempt")] = 12
    seed: Annotated[int, typer.Option(help="Order of the training images")] = 0

    def resumed_from(self) -> list[Path]:
        return [self.out.with_name(self.out.name + ".progress")]


@dataclass(frozen=True, kw_only=True)
class Decompress(Verb):
    """Write the float tensors of a compressed file as safetensors."""

    job = "fewbits.cli.compress:decompress"
    examples = ("fewbits decompress net.fewbits --out net.safetensors",)

    file: Annotated[Path, typer.Argument(help="A .fewbits file of compressed weights")]
    out: Annotated[Path, typer.Option(help="The .safetensors file to write")]
