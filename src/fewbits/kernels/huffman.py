"""Bit streams of prefix codes: symbols to bits, and back.

A stream is filled from the least significant bit of its first byte; a code's first bit comes first, so codes are held
bit-reversed. The bits over in the last byte are zero.
"""

from collections.abc import Sequence

import numpy as np

from fewbits.kernels.library import native

MAX_LENGTH = 12  # bits of the longest code: the decoding table then fits the first-level cache
TABLE = 2**MAX_LENGTH
_ENCODED_AT_ONCE = 2**20  # symbols
_DECODED_AT_ONCE = 2**17  # bytes
_NATIVE_STREAMS = 4


class StreamError(Exception):
    """Bits that are not those of the symbols they should hold."""


def encode_stream(symbols: np.ndarray, codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """The bits of the symbols' codes, one behind the other.

    symbols: uint8 [n]; codes: uint16 [256], bit-reversed; lengths: uint8 [256], in bits, 1 to MAX_LENGTH for
    every symbol that occurs.
    """
    library = native()
    if library is None:
        return encode_stream_reference(symbols, codes, lengths)
    assert symbols.dtype == np.uint8 and len(codes) == len(lengths) == 256
    symbols, codes = np.ascontiguousarray(symbols), np.ascontiguousarray(codes, np.uint16)
    lengths = np.ascontiguousarray(lengths, np.uint8)
    out = np.empty((MAX_LENGTH * symbols.size + 7) // 8 + 8, np.uint8)
    size = library.fb_encode(symbols.ctypes.data, symbols.size, codes.ctypes.data, lengths.ctypes.data,
                             out.ctypes.data)
    return out[:size].tobytes()


def encode_stream_reference(symbols: np.ndarray, codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """The definition of `encode_stream`."""
    chunks, over = [], np.zeros(0, np.uint8)
    for begin in range(0, len(symbols), _ENCODED_AT_ONCE):
        some = symbols[begin:begin + _ENCODED_AT_ONCE]
        sizes, words = lengths[some].astype(np.int64), codes[some]
        starts = len(over) + np.cumsum(sizes) - sizes
        bits = np.zeros(len(over) + int(sizes.sum()), np.uint8)
        bits[:len(over)] = over
        for bit in range(int(sizes.max())):
            there = sizes > bit
            bits[starts[there] + bit] = words[there] >> bit & 1
        whole = len(bits) // 8 * 8
        chunks.append(np.packbits(bits[:whole], bitorder="little").tobytes())
        over = bits[whole:]
    return b"".join(chunks) + np.packbits(over, bitorder="little").tobytes()


def decode_streams(streams: Sequence[bytes | memoryview], counts: Sequence[int], table: np.ndarray) -> np.ndarray:
    """uint8 [sum of counts]: the symbols of all streams, one stream behind the other.

    counts: symbols in each stream; table: uint16 [TABLE], for the next MAX_LENGTH bits the length of their
    first code · 256 + its symbol, no length 0. Raises StreamError unless each stream holds just its symbols.
    """
    library = native()
    if library is None or len(streams) > _NATIVE_STREAMS:
        return decode_streams_reference(streams, counts, table)
    assert table.dtype == np.uint16 and len(table) == TABLE and len(streams) == len(counts) and (table >> 8).all()
    arrays = [np.frombuffer(stream, np.uint8) for stream in streams]
    if any(count > 8 * array.size for count, array in zip(counts, arrays, strict=True)):
        raise StreamError("the bits end before the symbols")
    addresses = np.array([array.ctypes.data for array in arrays], np.uint64)
    sizes, numbers = np.array([array.size for array in arrays], np.int64), np.array(counts, np.int64)
    table, out = np.ascontiguousarray(table), np.empty(int(numbers.sum()), np.uint8)
    if library.fb_decode(addresses.ctypes.data, sizes.ctypes.data, numbers.ctypes.data, len(arrays),
                         table.ctypes.data, out.ctypes.data):
        raise StreamError("the bits do not end with the symbols")
    return out


def decode_streams_reference(streams: Sequence[bytes | memoryview], counts: Sequence[int],
                             table: np.ndarray) -> np.ndarray:
    """The definition of `decode_streams`."""
    return np.concatenate([_decode(np.frombuffer(stream, np.uint8), count, table)
                           for stream, count in zip(streams, counts, strict=True)] or [np.zeros(0, np.uint8)])


def _decode(data: np.ndarray, count: int, table: np.ndarray) -> np.ndarray:
    """One stream. What begins at every bit is looked up at once; a walk then takes the ones that count."""
    if count > 8 * len(data):
        raise StreamError(f"{count} symbols do not fit {len(data)} bytes")
    padded = np.concatenate((data, np.zeros(4, np.uint8)))
    out = np.empty(count, np.uint8)
    done, at = 0, 0  # symbols, bits
    while done < count:
        first = at // 8
        words = _next_bits(padded[first:first + _DECODED_AT_ONCE + 3])
        entries = table[words].tolist()
        at -= 8 * first
        found = []
        end, left = len(entries), count - done
        while at < end and left:
            entry = entries[at]
            found.append(entry & 255)
            at += entry >> 8
            left -= 1
        if not found:
            raise StreamError("the bits end before the symbols")
        out[done:done + len(found)] = found
        done, at = done + len(found), at + 8 * first
    if -(-at // 8) != len(data) or (at % 8 and data[-1] >> at % 8):
        raise StreamError("the bits do not end with the symbols")
    return out


def _next_bits(data: np.ndarray) -> np.ndarray:
    """For each bit of all but the last three bytes, the MAX_LENGTH bits from there: [8 · (n − 3)]."""
    wide = data.astype(np.uint32)
    words = wide[:-3] | wide[1:-2] << 8 | wide[2:-1] << 16
    return (words[:, None] >> np.arange(8, dtype=np.uint32) & (TABLE - 1)).reshape(-1)
