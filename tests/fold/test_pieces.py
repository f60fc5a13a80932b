"""Functions written with comparisons: found in every common writing, equal to the float network, and in integers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewbits as fb
from called import Call
from fewbits.errors import ProgramError, UnsupportedError
from fewbits.graph.functions import two_pieces
from fewbits.program import ops as op
from fewbits.report.engines import agreement

WRITINGS = {
    "a sign of numbers": lambda x: torch.where(x >= 0, 1.0, -1.0),
    "a sign of tensors": lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)),
    "a slope": lambda x: torch.where(x > 0, x, 0.1 * x),
    "a quotient": lambda x: torch.where(x <= 0.5, x / 4, torch.full_like(x, 0.3)),
    "a number second": lambda x: torch.where(x < 0.3, x, 0.3),
    "a number first": lambda x: torch.where(x < 0.3, -0.5, 2 * -x),
    "unlike": lambda x: torch.where(x != 0, x * 3, torch.zeros_like(x)),
    "like": lambda x: torch.where(x == 0, 2.0, x),
    "a step": lambda x: (x > 0).float(),
    "a step, cast": lambda x: (x > 0).to(x.dtype) * 2 - 1,
    "a gate": lambda x: x * (x > 0.2),
    "a gate first": lambda x: (x > 0.2) * x,
    "filled": lambda x: x.masked_fill(x < 0, 0.25),
    "threshold": lambda x: F.threshold(x, 0.1, -0.2),
}


@pytest.mark.parametrize("recipe", ["w8a8", "w8", "dynamic-w8a8"])
@pytest.mark.parametrize("name", WRITINGS)
def test_every_writing_is_one_function_and_no_engine_differs(name, recipe):
    function, before, behind = WRITINGS[name], nn.Linear(6, 6), nn.Linear(6, 4)
    net = Call(lambda x, before, behind: behind(function(before(x))), before, behind).eval()
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    folded = fb.fold(fb.capture(net, x))
    assert any(node.target is two_pieces for node in folded.graph.nodes)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-6, atol=1e-6)
    quantized = fb.quantize(net, x, [x], recipe)
    if recipe == "w8a8":
        assert any(isinstance(node, op.Table) for node in quantized.program.nodes)
        assert not quantized.program.has_islands
    assert not [row for row in agreement(quantized.program, [x], every_value=True) if row.exact and row.differing]


@pytest.mark.parametrize("function", [
    lambda x: torch.where(x.abs() > 0.5, x, 0.0), lambda x: torch.where(x > 0, x.exp(), x),
    lambda x: x * (x > x.mean(1, keepdim=True)), lambda x: torch.where(x[:, :3] > x[:, 3:], x[:, :3], -1.0)])
def test_other_comparisons_are_masks_and_choices(function):
    """A comparison is made on the numbers that the codes stand for, the same everywhere; near its bound the network
    and its program may choose otherwise."""
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    net = Call(function)
    quantized = fb.quantize(net, x, [x])
    assert not [row for row in agreement(quantized.program, [x], every_value=True) if row.exact and row.differing]
    noise = (quantized(x) - net(x)).square().mean()
    assert 10 * torch.log10(net(x).square().mean() / noise) > 20


def test_an_unknown_relation_is_refused():
    with pytest.raises(ProgramError, match=r"'near' is no comparison: choose one of gt, ge, lt, le, eq, ne"):
        two_pieces(torch.ones(2), "near", 0.0, 1.0, 0.0, 0.0, 0.0)


def test_what_folding_left_is_not_sent_back_to_it():
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    net = Call(lambda x: torch.linalg.vector_norm(x, ord=3, dim=1))
    model = fb.capture(net, x)
    with pytest.raises(UnsupportedError, match=r"vector_norm .*: folding takes it apart where it can"):
        fb.plan(model, "w8a8")
    with pytest.raises(UnsupportedError, match=r"vector_norm .*: no integer form of this use of it is known"):
        fb.plan(fb.fold(model), "w8a8")
