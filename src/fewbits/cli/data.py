"""What `--data` and the options beside it mean: `--mean`, `--std`, `--divide`, `--bgr`, `--label-offset`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from fewbits.data.normalize import Normalize
from fewbits.data.preparation import Preparation
from fewbits.data.sets import load
from fewbits.data.split import DataSet
from fewbits.errors import DataError

DataOption = Annotated[str, typer.Option("--data", help="digits | mnist:DIR | cifar10:DIR | images:DIR | npz:FILE")]
DataOrNone = Annotated[str | None, typer.Option(
    "--data", help="digits | mnist:DIR | cifar10:DIR | images:DIR | npz:FILE; not needed for weights alone (w8)")]
MeanOption = Annotated[str | None, typer.Option(help="Mean per channel, after --divide: 0.485,0.456,0.406")]
StdOption = Annotated[str | None, typer.Option(help="Standard deviation per channel: 0.229,0.224,0.225")]
DivideOption = Annotated[float | None, typer.Option(help="What bytes are divided by before mean and std; 255")]
BgrOption = Annotated[bool | None, typer.Option("--bgr/--rgb", help="Order of the colours the network takes")]
OffsetOption = Annotated[int | None, typer.Option(
    "--label-offset", help="Added to the labels: 1 where the network's class 0 is the background")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch")]


@dataclass(frozen=True)
class Given:
    """What the command line says of the data; None where it says nothing."""

    mean: str | None = None
    std: str | None = None
    divide: float | None = None
    bgr: bool | None = None
    label_offset: int | None = None

    def normalize(self, known: Normalize | None) -> Normalize | None:
        """`known` as the options change it. Raises DataError for options that are not whole."""
        if (self.mean is None) != (self.std is None):
            raise DataError("--mean and --std belong together: give both")
        if self.mean is not None and self.std is not None:
            bgr = (known is not None and known.bgr) if self.bgr is None else self.bgr
            return Normalize.parse(self.mean, self.std, 255.0 if self.divide is None else self.divide, bgr)
        if self.divide is not None:
            raise DataError("--divide comes before a mean and a standard deviation: give --mean and --std too")
        if self.bgr is None:
            return known
        if known is None:
            raise DataError("--bgr turns round the order of what is normalised: give --mean and --std too")
        return dataclasses.replace(known, bgr=self.bgr)


def open_data(text: str, given: Given, of_network: Preparation = Preparation(),  # noqa: B008, a frozen value
              shape: Sequence[int | None] | None = None) -> tuple[DataSet, Preparation]:
    """The data set, its labels those of the network, and what was done to it: as given, else as the network's task or
    file says, else as is usual for the data.

    shape: of one input of the network, where known. Raises DataError when bytes would go into the network as they are.
    """
    data = load(text, shape)
    stored_as_bytes = str(data.test.x.dtype) == "torch.uint8"
    if given.mean is not None and given.std is not None and not stored_as_bytes:
        raise DataError(f"{text} holds float32, which is taken as it is: leave out --mean and --std")
    normalize = given.normalize(of_network.normalize or data.normalize)
    if stored_as_bytes and normalize is None:
        raise DataError(f"{text} holds bytes: say how they are normalised with --mean and --std "
                        "(--mean 0 --std 1 for numbers from 0 to 1)")
    offset = of_network.label_offset if given.label_offset is None else given.label_offset
    return data.relabelled(offset), Preparation(normalize, offset)
