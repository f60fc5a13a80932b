"""Codes against the golden counts, their prefix property, and an independent decoder."""

import heapq
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewbits.compress.huffman import canonical_codes, code_lengths, decoding_table, entropy, is_complete
from fewbits.kernels.huffman import StreamError, decode_streams, encode_stream

counts_of_symbols = st.lists(st.integers(0, 10**6), min_size=2, max_size=64).filter(lambda c: sum(map(bool, c)) > 1)


def plain_huffman_bits(counts: list[int]) -> int:
    """Bits of an optimal code without a limit, by merging the two rarest."""
    heap, bits = [count for count in counts if count], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        bits += both
        heapq.heappush(heap, both)
    return bits


def decode_bit_by_bit(data: bytes, words: dict[str, int], count: int) -> list[int]:
    """Another decoder: reads bits until they are a word."""
    symbols, word = [], ""
    for byte in data:
        for bit in range(8):
            if len(symbols) == count:
                return symbols
            word += str(byte >> bit & 1)
            if word in words:
                symbols.append(words[word])
                word = ""
    return symbols


def words_of(lengths: np.ndarray) -> dict[str, int]:
    codes = canonical_codes(lengths)
    return {f"{codes[s]:0{lengths[s]}b}"[::-1]: int(s) for s in np.flatnonzero(lengths)}


@pytest.mark.parametrize("name", ["clrs", "kmeans_4x4_labels", "biased"])
def test_the_golden_counts(golden, name: str) -> None:
    expected = golden("deep_compression_coding")[name]
    counts = np.array(expected["freq"])
    lengths = code_lengths(counts)
    assert sorted(lengths.tolist()) == expected["sorted_code_lengths"]
    assert int((counts * lengths).sum()) == expected["total_bits"]
    assert entropy(counts) / counts.sum() == pytest.approx(expected["entropy_bits"], rel=1e-6)
    assert (0.5 ** lengths.astype(float)).sum() == expected["kraft_sum"]


@settings(max_examples=100)
@given(counts_of_symbols)
def test_no_code_is_the_beginning_of_another_and_none_is_left_out(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts))
    assert is_complete(lengths)
    words = sorted(words_of(lengths))
    assert len(words) == np.count_nonzero(counts)
    assert not any(longer.startswith(word) for word, longer in pairwise(words))
    bits = int((np.array(counts) * lengths).sum())
    assert bits >= entropy(np.array(counts)) * (1 - 1e-12)
    unlimited = plain_huffman_bits(counts)
    assert bits >= unlimited
    if code_lengths(np.array(counts), 30).max() <= 12:
        assert bits == unlimited


def test_the_limit_holds_for_the_steepest_counts() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(np.array(fibonacci))
    assert lengths.max() == 12
    assert is_complete(lengths)


@settings(max_examples=60)
@given(counts_of_symbols, st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_two_decoders_agree(counts: list[int], size: int, seed: int) -> None:
    lengths = np.zeros(256, np.uint8)
    lengths[:len(counts)] = code_lengths(np.array(counts))
    symbols = np.random.default_rng(seed).choice(np.flatnonzero(counts), size).astype(np.uint8)
    data = encode_stream(symbols, canonical_codes(lengths), lengths)
    assert len(data) == -(-int(lengths[symbols].sum()) // 8)
    assert decode_bit_by_bit(data, words_of(lengths), size) == symbols.tolist()
    np.testing.assert_array_equal(decode_streams([data], [size], decoding_table(lengths)), symbols)


def test_streams_longer_than_a_chunk() -> None:
    rng = np.random.default_rng(0)
    symbols = np.minimum(rng.geometric(0.3, 1_300_000) - 1, 15).astype(np.uint8)
    lengths = np.zeros(256, np.uint8)
    lengths[:16] = code_lengths(np.bincount(symbols, minlength=16))
    data = encode_stream(symbols, canonical_codes(lengths), lengths)
    np.testing.assert_array_equal(decode_streams([data], [len(symbols)], decoding_table(lengths)), symbols)


@pytest.mark.parametrize("change", ["short", "long", "more", "fewer", "padding"])
def test_a_stream_that_does_not_end_with_its_symbols_is_refused(change: str) -> None:
    lengths = np.zeros(256, np.uint8)
    lengths[:3] = 1, 2, 2
    symbols = np.array([1, 0, 2, 1, 1], np.uint8)  # 9 bits
    data, count = encode_stream(symbols, canonical_codes(lengths), lengths), 5
    data, count = {"short": (data[:-1], 5), "long": (data + b"\0", 5), "more": (data, 20), "fewer": (data, 2),
                   "padding": (data[:-1] + bytes([data[-1] | 128]), 5)}[change]
    with pytest.raises(StreamError):
        decode_streams([data], [count], decoding_table(lengths))
