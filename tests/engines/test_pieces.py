"""Batches in pieces: the same codes, less memory, and only where rows do not depend on each other."""

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines.native import pieces
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.native.pieces import is_by_row, rows_at_once
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.kernels import library
from fewbits.program.examples import as_program
from fewbits.program.ops import RECORDS, DynamicLinear, ExactCall, FloatCall
from fewbits.tasks.registry import TASKS
from fewbits.testing.random_programs import random_masked_program, random_program

pytestmark = pytest.mark.skipif(library.native() is None, reason="there is no native library here")


def test_how_many_rows():
    assert rows_at_once(8, pieces.ARENA) == 8
    assert rows_at_once(8, 2 * pieces.ARENA) == 4
    assert rows_at_once(8, 5 * pieces.ARENA) == 1
    assert rows_at_once(8, 100 * pieces.ARENA) == 1


@pytest.fixture(scope="module", params=["digits_net", "lenet5", "by hand"])
def made(request):
    """(program, inputs of 6 rows)."""
    torch.manual_seed(0)
    if request.param == "by hand":
        net, shape = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Hardswish(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1),
                                   nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), (3, 8, 10)
    else:
        net, shape = TASKS[request.param].build(), TASKS[request.param].example_shape
    x = torch.randn(6, *shape)
    program = fb.quantize(net.eval(), x, [x / 1.3], recipe="w8a8").program
    return program, {program.inputs[0]: x.numpy()}


def test_pieces_give_the_codes_of_the_whole(made, monkeypatch):
    program, inputs = made
    assert is_by_row(program, program.outputs)
    wanted = TorchExecutor(program).run(inputs)
    size = NativeExecutor(program).arena({name: array[:1] for name, array in inputs.items()}).size
    for rows in (1, 4):
        monkeypatch.setattr(pieces, "ARENA", size * rows)
        executor = NativeExecutor(program)
        found, real = executor.run(inputs), executor.real(inputs)
        for name, codes in wanted.items():
            assert np.array_equal(found[name], codes)
            assert found[name].dtype == codes.dtype
            assert np.array_equal(real[name], program.real(name, codes))
        assert max(key[1][0][0][0] for key in executor._compiled) == rows
        assert set(executor.run(inputs, program.by_name)) == set(program.by_name)


def test_rows_of_what_is_cut_do_not_depend_on_each_other(made):
    program, inputs = made
    whole = TorchExecutor(program).run(inputs, program.by_name)
    for first in range(6):
        alone = TorchExecutor(program).run({name: array[first:first + 1] for name, array in inputs.items()},
                                           program.by_name)
        for name, codes in whole.items():
            assert np.array_equal(alone[name], codes[first:first + 1])


def test_what_may_depend_on_other_rows_is_not_cut():
    masked = random_masked_program(0).program
    assert not is_by_row(masked, masked.outputs)
    for kind in (DynamicLinear, FloatCall, ExactCall):
        program, _ = as_program(RECORDS[kind].examples()[0])
        assert not is_by_row(program, program.outputs)


def test_inputs_that_do_not_fit_are_refused_as_ever():
    made = random_program(0)
    executor, (name, array) = NativeExecutor(made.program), next(iter(made.inputs.items()))
    for wrong in ({}, {name: array[:, :0]}, {name: np.float32(1)}, {name: array.tolist()}, {"other": array}):
        with pytest.raises(Exception) as told:  # noqa: PT011  as the reference does
            executor.run(wrong)
        assert type(told.value).__name__ == "ProgramError"
