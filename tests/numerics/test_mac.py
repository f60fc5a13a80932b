"""Low-precision multiply, float32 accumulate: against sums in float64 and torch's own bf16."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewbits.errors import EncodingError
from fewbits.numerics.formats import parse
from fewbits.numerics.mac import conv2d, matmul

NAMES = ["bf16", "tf32", "fp16", "e4m3", "e5m2", "e2m1"]


@pytest.mark.parametrize("name", NAMES)
def test_products_are_exact(name):
    """A sum of one term is the exact product of the rounded operands."""
    format = parse(name)
    a, b = torch.randn(500, 1), torch.randn(1, 500)
    exact = format.nearest(a).double() * format.nearest(b).double()
    assert torch.equal(matmul(a, b, format).double(), exact)


@pytest.mark.parametrize("name", NAMES)
def test_matmul_accumulates_in_float32(name):
    """Against float64 sums of the same products: within K·2^-24 of the sum of magnitudes, and not in less."""
    format, k = parse(name), 512
    a, b = torch.randn(20, k), torch.randn(k, 30)
    got = matmul(a, b, format)
    assert got.dtype == torch.float32
    qa, qb = format.nearest(a).double(), format.nearest(b).double()
    bound = k * 2.0**-24 * (qa.abs() @ qb.abs())
    assert ((got.double() - qa @ qb).abs() <= bound).all()


def test_a_sum_that_few_bits_would_lose():
    """4096 times 2^-9 on top of 1: in bf16 accumulation nothing would be added; in float32 it is 9."""
    a = torch.full((1, 4097), 2.0**-9)
    a[0, 0] = 1.0
    assert matmul(a, torch.ones(4097, 1), parse("bf16")).item() == 9.0


def test_torch_bf16_agrees():
    """torch's bf16 product, which accumulates in float32 and rounds once at the end: equal but for ties broken
    by the order of the sum, at most one unit of bf16 apart."""
    torch.manual_seed(0)
    a, b = torch.randn(64, 256), torch.randn(256, 64)
    theirs = (a.bfloat16() @ b.bfloat16()).float()
    ours = parse("bf16").nearest(matmul(a, b, parse("bf16")))
    assert (ours == theirs).float().mean() > 0.99
    assert ((ours - theirs).abs() <= ours.abs() * 2.0**-7 + 2.0**-12).all()


@pytest.mark.parametrize("name", NAMES)
def test_conv_rounds_its_operands_only(name):
    format = parse(name)
    x, w, bias = torch.randn(2, 4, 9, 9), torch.randn(6, 2, 3, 3), torch.randn(6)
    got = conv2d(x, w, format, bias, stride=2, padding=1, groups=2)
    qx, qw = format.nearest(x), format.nearest(w)
    assert torch.equal(got, F.conv2d(qx, qw, bias, 2, 1, 1, 2))
    assert got.shape == (2, 6, 5, 5)
    wide = F.conv2d(qx.double(), qw.double(), bias.double(), 2, 1, 1, 2)
    np.testing.assert_allclose(got.double(), wide, atol=1e-5 * float(wide.abs().max()))


def test_wide_formats_are_refused():
    with pytest.raises(EncodingError, match="exact"):
        matmul(torch.ones(2, 2), torch.ones(2, 2), parse("fp32"))
