"""Every level of the native kernels, bit for bit beside NumPy; and that all works without a library."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from fewbits.compress.huffman import canonical_codes, code_lengths, decoding_table
from fewbits.kernels import huffman, library, partition
from fewbits.kernels.build import build
from fewbits.kernels.histogram import count_into, count_into_reference, histogram

NATIVE = library.levels()[1:]
needs_library = pytest.mark.skipif(not NATIVE, reason="no native library: python -m fewbits.kernels.build")


def point_sets():
    rng = np.random.default_rng(0)
    yield np.sort(rng.standard_normal(2000)), np.ones(2000)
    yield np.sort(rng.standard_cauchy(1500)), rng.integers(1, 1000, 1500).astype(float)
    yield np.arange(300.0), np.ones(300)  # many ties
    yield np.sort(rng.random(7)), np.full(7, 0.5)


@needs_library
@pytest.mark.parametrize("level", NATIVE)
def test_cuts(level: library.Level) -> None:
    for values, weights in point_sets():
        sums = partition.prefix_sums(values, weights)
        for k in (1, 2, 3, 5, 7, 16):
            if k <= len(values):
                with library.use(level):
                    assert library.level() == level
                    cuts = partition.best_cuts(sums, k)
                np.testing.assert_array_equal(cuts, partition.best_cuts_reference(sums, k))


@needs_library
@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("size", [0, 1, 5, 100, 4097, 70_000])
def test_streams(level: library.Level, size: int) -> None:
    rng = np.random.default_rng(size)
    for alphabet in (2, 17, 256):
        counts = np.zeros(256, np.int64)
        counts[:alphabet] = rng.geometric(1e-3, alphabet)
        lengths = code_lengths(counts)
        codes, table = canonical_codes(lengths), decoding_table(lengths)
        parts = [rng.integers(0, alphabet, size + i).astype(np.uint8) for i in range(4)]
        with library.use(level):
            streams = [huffman.encode_stream(part, codes, lengths) for part in parts]
            found = huffman.decode_streams(streams, [len(part) for part in parts], table)
        assert streams == [huffman.encode_stream_reference(part, codes, lengths) for part in parts]
        np.testing.assert_array_equal(found, np.concatenate(parts))
        np.testing.assert_array_equal(histogram(found), np.bincount(found, minlength=256))


@needs_library
@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("exponent", [-140, -20, -3, 0, 5, 100])
def test_counts(level: library.Level, exponent: int) -> None:
    rng = np.random.default_rng(0)
    near = rng.integers(-300, 300, 2000).astype(np.float32)  # edges, and the numbers beside them
    values = np.concatenate([near, np.nextafter(near, np.float32(1e9)), np.nextafter(near, np.float32(-1e9)),
                             rng.uniform(-300, 300, 3001), [0.0, -0.0, 1e-38, -1e-38]]).astype(np.float32)
    values = np.ldexp(values, exponent)
    found, wanted = np.ones(700, np.int64), np.ones(700, np.int64)
    with library.use(level):
        count_into(found, values, exponent, -350)
    count_into_reference(wanted, values, exponent, -350)
    np.testing.assert_array_equal(found, wanted)
    assert found.sum() == 700 + values.size
    exact = [int(Fraction(float(x)) / Fraction(2)**exponent // 1) + 350 for x in values]
    np.testing.assert_array_equal(wanted, 1 + np.bincount(exact, minlength=700))


@needs_library
def test_both_refuse_the_same_streams() -> None:
    rng = np.random.default_rng(0)
    lengths = np.zeros(256, np.uint8)
    lengths[:9] = code_lengths(np.array([40, 30, 9, 8, 7, 6, 3, 2, 1]))
    codes, table = canonical_codes(lengths), decoding_table(lengths)
    symbols = rng.integers(0, 9, 60).astype(np.uint8)
    whole = huffman.encode_stream(symbols, codes, lengths)

    def outcome(decode, data: bytes, count: int) -> list[int] | None:
        try:
            return decode([data], [count], table).tolist()
        except huffman.StreamError:
            return None

    for _ in range(500):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        data = bytes(data[:len(data) - rng.integers(0, 3)])
        count = 60 + int(rng.integers(-2, 3))
        assert outcome(huffman.decode_streams, data, count) == outcome(huffman.decode_streams_reference, data, count)


def test_numpy_is_a_level_and_the_best_one_is_the_default() -> None:
    with library.use("numpy"):
        assert library.level() == "numpy"
        assert library.native() is None
    if "FEWBITS_LEVEL" not in os.environ:
        assert library.level() == library.levels()[-1]


def test_without_the_library_all_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import numpy as np; from fewbits.kernels.library import level; "
         "from fewbits.compress.stream import decode, encode; s = np.arange(9000, dtype=np.uint8) % 5; "
         "assert (decode(encode(s, 8)) == s).all(); print(level())"],
        env={**os.environ, "FEWBITS_LEVEL": "numpy"}, capture_output=True, text=True)
    assert done.stdout.strip() == "numpy", done.stderr


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_compiler_that_fails_is_a_sentence(compiler: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert compiler in build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())
