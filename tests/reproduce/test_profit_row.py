"""PROFIT beside plain LSQ, run small: what the row measures, not how well."""

import pytest
import torch

from fewbits.data.normalize import IMAGENET
from fewbits.data.split import DataSet, Split
from fewbits.reproduce.profit import Freezing, reproduce
from fewbits.reproduce.row import Given
from fewbits.reproduce.together import together


def coloured(train: int, test: int) -> DataSet:
    """Images of noise whose brightest row tells the class."""
    count = train + test
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (count,), generator=generator)
    x = torch.randint(0, 60, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    x[torch.arange(count), :, 3 * y + 2] = 250
    whole = Split(x, y)
    return DataSet("rows", whole.take(train), whole.take(64), whole.subset(range(train, count)), 10, IMAGENET)


def test_profit_beside_lsq() -> None:
    freezing = Freezing(float_epochs=2, epochs=(1, 1, 1), sampled=2, batch_size=32, held_out=40, tested=20)
    told: list[str] = []
    measured = reproduce(freezing, Given(coloured(380, 80), 0), told.append)
    assert measured["codes differing"] == 0
    assert measured["test images"] == 100, "80, and 20 that nothing learned from"
    assert measured["codes compared"] > 100_000
    assert [line.count(",") + 1 for line in told if line.startswith("frozen: ")] == [3, 6], "of nine convolutions"
    beside = {what: points for what, points, _ in together([measured])}
    assert beside == {"program less float": pytest.approx(measured["program"] - measured["float"]),
                      "program less lsq": pytest.approx(measured["program"] - measured["lsq"])}
