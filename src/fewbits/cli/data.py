"""What `--data` and the options beside it mean: `--mean`, `--std`, `--divide`, `--bgr`, `--label-offset`."""

import dataclasses
from collections.abc import Sequence

from fewbits.cli.verbs.shared import Labelled, Prepared
from fewbits.data.normalize import Normalize
from fewbits.data.preparation import Preparation
from fewbits.data.sets import load
from fewbits.data.split import DataSet
from fewbits.errors import DataError


def normalize_of(asked: Prepared, known: Normalize | None) -> Normalize | None:
    """`known` as the options change it. Raises DataError for options that are not whole."""
    if (asked.mean is None) != (asked.std is None):
        raise DataError("--mean and --std belong together: give both")
    if asked.mean is not None and asked.std is not None:
        bgr = (known is not None and known.bgr) if asked.bgr is None else asked.bgr
        return Normalize.parse(asked.mean, asked.std, 255.0 if asked.divide is None else asked.divide, bgr)
    if asked.divide is not None:
        raise DataError("--divide comes before a mean and a standard deviation: give --mean and --std too")
    if asked.bgr is None:
        return known
    if known is None:
        raise DataError("--bgr turns round the order of what is normalised: give --mean and --std too")
    return dataclasses.replace(known, bgr=asked.bgr)


def open_data(text: str, asked: Prepared, of_network: Preparation = Preparation(),  # noqa: B008, a frozen value
              shape: Sequence[int | None] | None = None) -> tuple[DataSet, Preparation]:
    """The data set, its labels those of the network, and what was done to it: as asked, else as the network's task or
    file says, else as is usual for the data.

    shape: of one input of the network, where known. Raises DataError when bytes would go into the network as they are.
    """
    data = load(text, shape)
    stored_as_bytes = str(data.test.x.dtype) == "torch.uint8"
    if asked.mean is not None and asked.std is not None and not stored_as_bytes:
        raise DataError(f"{text} holds float32, which is taken as it is: leave out --mean and --std")
    normalize = normalize_of(asked, of_network.normalize or data.normalize)
    if stored_as_bytes and normalize is None:
        raise DataError(f"{text} holds bytes: say how they are normalised with --mean and --std "
                        "(--mean 0 --std 1 for numbers from 0 to 1)")
    given = asked.label_offset if isinstance(asked, Labelled) else None
    offset = of_network.label_offset if given is None else given
    return data.relabelled(offset), Preparation(normalize, offset)
