"""Every format of the catalogue: the conformance check over all codes, and figures known from elsewhere."""

import numpy as np
import pytest

from fewbits.errors import EncodingError
from fewbits.numerics.catalogue import CATALOGUE, entry
from fewbits.numerics.formats import Int, Levels, parse
from fewbits.testing.format import boundary_grid, check_format

# name: bits, count of numbers, smallest above 0, largest
FIGURES = {
    "q4.4": (8, 256, 1, 127), "q8.8": (16, 65536, 1, 32767), "q9.7": (16, 65536, 1, 32767),
    "uq0.8": (8, 256, 1, 255), "q9.-1": (8, 256, 1, 127), "q-2.10": (8, 256, 1, 127),
    "fp16": (16, 63487, 2.0**-24, 65504), "bf16": (16, 65279, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "tf32": (19, 522239, 2.0**-136, (2 - 2.0**-10) * 2.0**127),
    "e4m3": (8, 253, 2.0**-9, 448), "e4m3-nosat": (8, 253, 2.0**-9, 448),
    "e5m2": (8, 247, 2.0**-16, 57344), "e5m2-nosat": (8, 247, 2.0**-16, 57344),
    "e4m3-fnuz": (8, 255, 2.0**-10, 240), "e5m2-fnuz": (8, 255, 2.0**-17, 57344),
    "e4m3-ieee": (8, 239, 2.0**-9, 240), "e3m4": (8, 223, 2.0**-6, 15.5),
    "e4m3-fnuz-b11": (8, 255, 2.0**-13, 30), "e2m3": (6, 63, 0.125, 7.5), "e3m2": (6, 63, 0.0625, 28),
    "e2m1": (4, 15, 0.5, 6), "e3m0": (4, 13, 0.25, 8), "e8m0": (8, 255, 2.0**-127, 2.0**127),
    "e4m3-flush": (8, 239, 2.0**-6, 448), "e4m3-finite-zero": (8, 255, 1.125 * 2.0**-7, 480),
    "e5m2-finite-zero": (8, 255, 1.25 * 2.0**-15, 1.75 * 2.0**16),
    "pow2-3": (3, 8, 2.0**-4, 0.5), "pow2-4": (4, 16, 2.0**-8, 0.5), "pow2-5": (5, 32, 2.0**-16, 0.5),
    "log2-3": (3, 7, 0.25, 1), "log2-4": (4, 15, 2.0**-6, 1), "log2-5": (5, 31, 2.0**-14, 1),
    "ulog2-3": (3, 8, 2.0**-6, 1), "ulog2-4": (4, 16, 2.0**-14, 1),
    "linear-2": (2, 4, 0.5, 1), "linear-3": (3, 8, 0.25, 1), "linear-4": (4, 16, 0.125, 1),
    "logsqrt2-4": (4, 15, 2.0**-3, 1), "logsqrt2-5": (5, 31, 2.0**-7, 1),
    "inq-2": (2, 3, 1, 1), "inq-3": (3, 5, 0.5, 1), "inq-4": (4, 9, 0.125, 1), "inq-5": (5, 17, 2.0**-7, 1),
    "apot-3": (3, 7, 0.25, 1), "apot-4": (4, 15, 0.1, 1), "apot-5": (5, 31, 1 / 48, 1),
    "apot-6": (6, 63, 2.0**-7 / (2.0**-1 + 2.0**-2 + 2.0**-5), 1),
    "apot-8": (8, 255, 2.0**-10 / (2.0**-1 + 2.0**-2 + 2.0**-3 + 2.0**-7), 1),
    "uapot-4": (4, 16, 1 / 48, 1), "uapot-8": (8, 256, 2.0**-12 / (0.5 + 0.25 + 0.125 + 0.0625), 1),
    "nf4": (4, 16, 0.07958029955625534, 1), "ternary": (2, 3, 1, 1), "binary": (1, 2, 1, 1),
    "hwgq2": (2, 4, 0.538, 1.614)}


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE])
def test_conforms(name):
    check_format(parse(name))


def test_fp32_conforms_on_a_sample():
    check_format(parse("fp32"))


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE if each.family != "integers"])
def test_figures(name):
    format = parse(name)
    bits, count, smallest, largest = FIGURES[name]
    values = format.values()
    assert (format.bits, len(values), format.largest) == (bits, count, largest)
    np.testing.assert_allclose(values[values > 0][0], smallest, rtol=1e-12)
    assert (np.diff(values) > 0).all()


def test_the_check_finds_faults(monkeypatch):
    monkeypatch.setattr(Int, "encode", lambda self, x, rounding=None: np.floor(x).clip(-8, 7).astype(np.int8))
    with pytest.raises(AssertionError, match="int4: "):
        check_format(Int(4))


def test_the_grid_surrounds_every_boundary():
    grid = boundary_grid(parse("ternary"), around=1)
    for point in (-1.0, -0.5, 0.0, 0.5, 1.0):
        for neighbour in (-np.inf, np.inf):
            assert np.nextafter(np.float32(point), np.float32(neighbour)) in grid
        assert point in grid


def test_names_are_unique_and_their_own():
    names = [each.name for each in CATALOGUE]
    assert len(set(names)) == len(names)
    assert [str(each.format) for each in CATALOGUE] == names
    assert entry("e3m3").format == parse("e3m3")
    with pytest.raises(EncodingError, match="no format is called 'int99x'"):
        entry("int99x")


def test_tables_without_a_name_parse_back():
    for table in (Levels((-1, 0, 2.5)), Levels((0, 1), (0.25,), "down"), Levels((0.1, 0.2, 0.3), ties="away")):
        assert parse(str(table)) == table
