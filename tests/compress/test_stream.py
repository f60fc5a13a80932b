"""Every coding gives its symbols back, and refuses bytes that are not of them."""

from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.compress import stream
from fewbits.compress.positions import escapes, fillers, from_escapes, from_fillers
from fewbits.compress.stream import Coded, decode, encode, group, pers
from fewbits.kernels.huffman import StreamError


def draw(alphabet: int, size: int, seed: int = 0) -> np.ndarray:
    """Symbols of which low ones are more frequent."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(min(0.6, 3 / alphabet), size) - 1, alphabet - 1).astype(np.uint8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("size", [0, 1, 2, 7, 4095, 4096, 30_001])
def test_every_coding_is_lossless(bits: int, size: int) -> None:
    alphabet = 2**bits
    symbols = draw(alphabet, size)
    codings = [encode(symbols, alphabet), stream.packed(symbols, alphabet)]
    for per in pers(alphabet):
        grouped = group(symbols, per)
        codings.append(stream.zstd(grouped, alphabet, size, per))
        codings += filter(None, [stream.huffman(grouped, alphabet, size, per)])
    for coded in codings:
        np.testing.assert_array_equal(decode(coded), symbols)
        assert codings[0].size <= coded.size


def test_one_symbol_takes_one_byte() -> None:
    coded = encode(np.full(10**6, 3, np.uint8), 16)
    assert (coded.coding, coded.size) == ("one", 1)
    assert (decode(coded) == 3).all()


def test_long_huffman_has_four_streams() -> None:
    assert len(encode(draw(16, 5000), 16).streams) == 4


def test_the_estimate_is_what_encoding_takes() -> None:
    for alphabet in (2, 16, 200):
        symbols = draw(alphabet, 3000)
        best = min(coded.size for per in pers(alphabet)
                   if (coded := stream.huffman(group(symbols, per), alphabet, 3000, per)))
        assert best == pytest.approx(stream.huffman_bits(symbols, alphabet) / 8, abs=2)


def wrong() -> list[Coded]:
    symbols = draw(16, 5000)
    good = stream.huffman(symbols, 16, 5000, 1)
    assert good is not None
    bomb = zstandard.ZstdCompressor().compress(bytes(10**7))
    packed = stream.packed(symbols, 16)
    return [replace(good, count=4999), replace(good, count=10**12), replace(good, streams=good.streams[:1]),
            replace(good, table=b""), replace(good, table=b"\x11" * 8), replace(good, table=b"\xff" * 200),
            replace(good, per=3), replace(good, alphabet=3), replace(good, alphabet=0),
            Coded("zstd", 256, 5, 1, b"", (bomb,)), Coded("zstd", 256, 5, 1, b"", (b"nothing",)),
            Coded("zstd", 256, 5, 1, b"", (b"",)), Coded("one", 4, 5, 1, b"", ()), Coded("one", 4, 5, 1, b"\x04", ()),
            replace(packed, count=2**40), replace(packed, streams=()), replace(packed, table=b"a"),
            Coded("packed", 3, 4, 1, b"", (b"\xff",)), Coded("rice", 3, 4, 1, b"", ())]  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(len(wrong())))
def test_what_no_encoder_made_is_refused(number: int) -> None:
    with pytest.raises(StreamError):
        decode(wrong()[number])


@settings(max_examples=100)
@given(st.sets(st.integers(0, 5000), max_size=60), st.integers(1, 255))
def test_positions_come_back(places: set[int], limit: int) -> None:
    positions = np.array(sorted(places), np.int64)
    symbols, real = fillers(positions, limit)
    np.testing.assert_array_equal(from_fillers(symbols)[real], positions)
    np.testing.assert_array_equal(from_escapes(escapes(positions, limit), limit), positions)


def test_the_papers_example_of_gaps(golden) -> None:
    expected = golden("deep_compression_coding")["relative_index_fig2"]
    symbols, real = fillers(np.array(expected["positions"]), expected["max_gap"], before=expected["first_base"])
    assert (symbols + 1).tolist() == [entry["diff"] for entry in expected["encoded"]]
    assert real.tolist() == [entry["value"] != 0.0 for entry in expected["encoded"]]


def test_an_open_escape_is_refused() -> None:
    with pytest.raises(StreamError):
        from_escapes(np.array([1, 3], np.uint8), 3)
