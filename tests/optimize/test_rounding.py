"""Codes written back as numbers: nearest rounding gives them again, whatever the scale and width."""

import numpy as np
import pytest
import torch

from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import parse
from fewbits.optimize.rounding import numbers


@pytest.mark.parametrize("format", ["int2", "int4", "int8", "int16", "uint16"])
@pytest.mark.parametrize("seed", range(3))
def test_every_code_comes_back_at_any_scale(format, seed):
    rng = np.random.default_rng(seed)
    codes = parse(format).values().astype(np.float32)
    for scale in np.exp2(rng.uniform(-100, 80, 40)):
        encoding = Encoding(parse(format), np.float32(scale), 3 if format == "uint16" else 0)
        values = numbers(encoding, torch.from_numpy(codes)).numpy()
        assert (encoding.encode(values).codes == codes).all()
        assert (encoding.encode(values.astype(np.float64)).codes == codes).all()
