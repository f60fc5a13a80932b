"""The calibration-size study: its rows are those of programs calibrated by hand."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.engines.executable import Executable
from fewbits.errors import CalibrationError, DataError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.accuracy import compare, evaluate
from fewbits.report.calibration_study import calibration_study


def case(classes):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)).eval()
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(5, 1, 6, 6, generator=generator) * (1 + i) for i in range(6)]
    test = [(torch.randn(20, 1, 6, 6, generator=generator), torch.arange(20) % classes) for _ in range(2)]
    model = fold(capture(net, batches[0]))
    return net, model, plan(model, "w8a8"), batches, test


def test_each_row_is_calibrated_on_the_first_batches_only():
    net, model, decided, batches, test = case(9)
    rows = calibration_study(model, decided, batches, test, counts=(1, 6), float_model=net)
    assert [row.batches for row in rows] == [1, 6]
    for row in rows:
        program = Executable(lower(calibrate(model, decided, batches[:row.batches])))
        assert row.comparison == compare(net, program, test)
        assert row.top5 == evaluate(program, test, "top5")
        assert row.float_top5 == evaluate(net, test, "top5")
    assert rows[0].comparison.sqnr != rows[1].comparison.sqnr
    cells = replace(rows[0], top5=None).cells()
    assert (cells[0], cells[4]) == ("1", "–")


def test_few_classes_have_no_top_5():
    _, model, decided, batches, test = case(5)
    row, = calibration_study(model, decided, batches, test, counts=[2])
    assert (row.top5, row.float_top5) == (None, None)


def test_what_cannot_be():
    _, model, decided, batches, test = case(3)
    with pytest.raises(CalibrationError, match="there are 6 calibration batches, too few for 50"):
        calibration_study(model, decided, batches, test)
    with pytest.raises(CalibrationError, match="at least one batch"):
        calibration_study(model, decided, batches, test, counts=[0])
    with pytest.raises(DataError, match="one-shot"):
        calibration_study(model, decided, iter(batches), test)
