"""What `--data`, `--mean`, `--std` and `--divide` mean."""

from collections.abc import Sequence
from typing import Annotated

import typer

from fewbits.errors import DataError
from fewbits.tasks.data import load
from fewbits.tasks.normalize import Normalize
from fewbits.tasks.split import DataSet

DataOption = Annotated[str, typer.Option("--data", help="digits | mnist:DIR | cifar10:DIR | images:DIR | npz:FILE")]
MeanOption = Annotated[str | None, typer.Option(help="Mean per channel, after --divide: 0.485,0.456,0.406")]
StdOption = Annotated[str | None, typer.Option(help="Standard deviation per channel: 0.229,0.224,0.225")]
DivideOption = Annotated[float, typer.Option(help="What bytes are divided by before mean and std")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per batch")]


def open_data(text: str, mean: str | None, std: str | None, divide: float,
              of_task: Normalize | None = None,
              shape: Sequence[int | None] | None = None) -> tuple[DataSet, Normalize | None]:
    """The data set and the normalisation of its bytes: as given, else the network's, else the data's own.

    shape: of one input of the network, where known. Raises DataError when bytes would go into the network as they are.
    """
    data = load(text, shape)
    if (mean is None) != (std is None):
        raise DataError("--mean and --std belong together: give both")
    stored_as_bytes = str(data.test.x.dtype) == "torch.uint8"
    if mean is not None and std is not None:
        if not stored_as_bytes:
            raise DataError(f"{text} holds float32, which is taken as it is: leave out --mean and --std")
        return data, Normalize.parse(mean, std, divide)
    normalize = (of_task or data.normalize) if stored_as_bytes else None
    if stored_as_bytes and normalize is None:
        raise DataError(f"{text} holds bytes: say how they are normalised with --mean and --std "
                        "(--mean 0 --std 1 for numbers from 0 to 1)")
    return data, normalize
