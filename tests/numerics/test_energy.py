"""The cost tables as the documents print them, and the estimate made of them."""

import pytest

from fewbits.errors import EncodingError
from fewbits.numerics.energy import Work, costs_45nm, energy, macs


def test_the_tables_are_the_documents():
    table = costs_45nm()
    lecture = {name: (cost.pJ[0], cost.um2) for name, cost in table.operations.items() if cost.origin == "lecture"}
    assert lecture == {"add int8": (0.03, 36), "add fp32": (0.9, 4184), "multiply int8": (0.2, 282),
                       "multiply fp32": (3.7, 7700)}
    assert {name: cost.pJ for name, cost in table.access.items()} == {
        "8 KB cache": (10, 10), "32 KB cache": (20, 20), "1 MB cache": (100, 100), "DRAM": (1300, 2600)}
    assert table.operations["add fp32"].pJ[0] / table.operations["add int8"].pJ[0] == pytest.approx(30)
    assert table.operations["multiply fp32"].pJ[0] / table.operations["multiply int8"].pJ[0] == pytest.approx(18.5)
    assert "0.9 V" in table.process


def test_an_estimate_adds_up():
    layers = [Work(macs(1000, "int8"), 80, "conv"), Work({"add int8": 10}, 8)]
    got = energy(layers)
    assert got.arithmetic == pytest.approx((1000 * 0.3 + 10 * 0.03,) * 2)
    assert got.memory == pytest.approx((11 * 1300, 11 * 2600))
    assert got.total == pytest.approx((got.arithmetic[0] + got.memory[0], got.arithmetic[1] + got.memory[1]))
    assert any("DRAM" in line for line in got.assumptions)
    assert "assumed" in str(got)
    assert energy(layers, "8 KB cache").memory == pytest.approx((110, 110))


def test_eight_bits_cost_less_than_float():
    float_net = energy([Work(macs(1e6, "fp32"), 4e6)])
    int_net = energy([Work(macs(1e6, "int8"), 1e6)])
    assert float_net.arithmetic[0] / int_net.arithmetic[0] == pytest.approx(4.6 / 0.3)
    assert float_net.memory[0] / int_net.memory[0] == pytest.approx(4)


def test_what_the_tables_have_not():
    with pytest.raises(EncodingError, match="divide"):
        energy([Work({"divide fp32": 1}, 0)])
    with pytest.raises(EncodingError, match="tape"):
        energy([], "tape")
    with pytest.raises(EncodingError, match="negative"):
        energy([Work({}, -1)])
    with pytest.raises(EncodingError, match="int4"):
        macs(1, "int4")
