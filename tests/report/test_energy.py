"""Energy of a program: counted by hand, priced by the documents' table."""

import pytest
import torch
from report_cases import Case, lowered
from torch import nn

from fewbits.report.energy import energy_estimates, float_work, integer_work


@pytest.fixture(scope="module")
def two_layers() -> Case:
    """3×3 convolution of 2 to 4 channels on 6×6 (outputs 4×4), then ten outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))
        return lowered(net, torch.randn(4, 2, 6, 6))


def test_a_network_counted_by_hand(two_layers: Case) -> None:
    quantize, conv, reshape, linear = integer_work(two_layers.program)
    assert quantize.operations == {"multiply fp32": 72, "add fp32": 72}
    assert quantize.bytes == 72 * 4 + 72
    products = 4 * 4 * 4 * 2 * 9
    assert conv.operations == {"multiply int8": products, "add int32": products, "multiply fp32": 64, "add fp32": 64}
    assert conv.bytes == 72 + 64 + 4 * 2 * 9 + 4 * 4 + 4 * 4  # in, out, codes, scales, biases
    assert reshape.operations == {}
    assert reshape.bytes == 2 * 64
    assert linear.operations == {"multiply int8": 640, "add int32": 640}  # left in the sums: nothing is requantized
    assert linear.bytes == 64 + 4 * 10 + 640 + 4 * 10 + 4 * 10
    assert [work.bytes for work in float_work(two_layers.program)] == [
        4 * (72 + 64 + 72 + 4), 4 * 2 * 64, 4 * (64 + 10 + 640 + 10)]
    assert [dict(work.operations) for work in float_work(two_layers.program)] == [
        {"multiply fp32": products, "add fp32": products}, {}, {"multiply fp32": 640, "add fp32": 640}]


def test_arithmetic_and_memory_apart(two_layers: Case) -> None:
    near, far = energy_estimates(two_layers.program)
    products = 4 * 4 * 4 * 2 * 9 + 640
    assert near.original.arithmetic[0] == pytest.approx(products * 4.6)
    assert near.integers.arithmetic[0] == pytest.approx(products * 0.3 + (72 + 64) * 4.6)
    assert near.integers.arithmetic == far.integers.arithmetic
    moved = sum(work.bytes for work in integer_work(two_layers.program))
    assert near.integers.memory[0] == pytest.approx(moved / 8 * 20)
    assert far.integers.memory == pytest.approx((moved / 8 * 1300, moved / 8 * 2600))
    assert far.ratio[0] == pytest.approx(far.original.total[0] / far.integers.total[0])


def test_every_node_is_counted_or_known_to_move_only(everything: Case) -> None:
    """Nodes that compute have arithmetic; those that move codes have bytes."""
    moving = {"Reshape", "Transpose", "Slice", "Gather", "Pad", "MaxPool", "Table", "Constant", "Embedding"}
    for node, work in zip(everything.program.nodes, integer_work(everything.program), strict=True):
        assert bool(work.operations) != (type(node).__name__ in moving), node
        assert work.bytes > 0


def test_wider_codes_multiply_in_32_bits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        case = lowered(nn.Sequential(nn.Linear(8, 4)), torch.randn(4, 8), "w8a16", "litert-int16")
    (linear,) = (work for work in integer_work(case.program) if "multiply int32" in work.operations)
    assert linear.operations["multiply int32"] == linear.operations["add int32"] == 32
