"""Streams of small symbols, encoded by the smallest of four codings; decoding is bounded in memory."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import zstandard

from fewbits.compress.huffman import canonical_codes, code_lengths, decoding_table, is_complete
from fewbits.kernels.histogram import histogram
from fewbits.kernels.huffman import StreamError, decode_streams, encode_stream
from fewbits.numerics.formats import Int
from fewbits.numerics.packing import pack, packed_bytes, unpack

Coding = Literal["one", "packed", "huffman", "zstd"]
CODINGS: tuple[Coding, ...] = get_args(Coding)

_MANY_STREAMS = 4
_MANY_FROM = 4096  # symbols: below, the lengths of four streams cost more than they speed up
_THOROUGH_UP_TO = 2**22  # bytes: above, zstd's best level takes minutes
_WINDOW_LIMIT = 2**27  # bytes, of zstd's memory


@dataclass(frozen=True, eq=False)
class Coded:
    """n symbols, each below `alphabet`.

    coding: `one`: all are the symbol that the table's single byte says; `packed`: as few whole bits each as the
    alphabet needs (docs/file-format.md, "Packed codes"); `huffman` and `zstd`: bytes of `per` symbols each, the
    first in the lowest bits. table: of `huffman`, lengths of the codes of all bytes up to the last that
    occurs, four bits each. streams: one behind the other they hold the symbols; `huffman` splits long ones in four
    of about equally many bytes (the first ones have more), so that a reader can follow four at once.
    """

    coding: Coding
    alphabet: int
    count: int
    per: int
    table: bytes
    streams: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of table and streams."""
        return len(self.table) + sum(map(len, self.streams))


def encode(symbols: np.ndarray, alphabet: int) -> Coded:
    """The smallest of all codings. symbols: uint8 [n], each below `alphabet` (1 to 256)."""
    assert symbols.dtype == np.uint8 and symbols.ndim == 1
    if symbols.size and (symbols == symbols[0]).all():
        return Coded("one", alphabet, symbols.size, 1, bytes([symbols[0]]), ())
    best = packed(symbols, alphabet)
    for per in pers(alphabet):
        grouped = group(symbols, per)
        for other in (huffman(grouped, alphabet, symbols.size, per), zstd(grouped, alphabet, symbols.size, per)):
            if other is not None and other.size < best.size:
                best = other
    return best


def pers(alphabet: int) -> tuple[int, ...]:
    """Candidate numbers of symbols per byte: one, and as many as fit."""
    most = next(per for per in (8, 4, 2, 1) if alphabet <= 2 ** (8 // per))
    return (1,) if most == 1 else (1, most)


def group(symbols: np.ndarray, per: int) -> np.ndarray:
    """uint8 [⌈n / per⌉]: `per` symbols in each byte, the first in the lowest bits; zeros fill the last."""
    if per == 1:
        return symbols
    padded = np.zeros(-(-symbols.size // per) * per, np.uint8)
    padded[:symbols.size] = symbols
    grouped = padded[::per].copy()
    for place in range(1, per):
        grouped |= padded[place::per] << np.uint8(place * (8 // per))
    return grouped


def packed(symbols: np.ndarray, alphabet: int) -> Coded:
    """Fixed-width codes."""
    return Coded("packed", alphabet, symbols.size, 1, b"", (pack(symbols, _width(alphabet)).tobytes(),))


def huffman(grouped: np.ndarray, alphabet: int, count: int, per: int) -> Coded | None:
    """Canonical Huffman over bytes of `per` symbols; None when fewer than two bytes occur."""
    counts = histogram(grouped)
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return None
    lengths = code_lengths(counts)
    codes = canonical_codes(lengths)
    streams = tuple(encode_stream(part, codes, lengths) for part in np.split(grouped, _cuts(grouped.size)))
    return Coded("huffman", alphabet, count, per, _table(lengths[:used[-1] + 1]), streams)


def huffman_bits(symbols: np.ndarray, alphabet: int) -> int:
    """Bits that `encode` takes at most (the better `huffman`, or `one`), table included, without encoding."""
    if not symbols.size or (symbols == symbols[0]).all():
        return 8
    sizes = []
    for per in pers(alphabet):
        counts = histogram(group(symbols, per))
        lengths = code_lengths(counts)
        sizes.append(int((counts * lengths).sum()) + 4 * int(np.flatnonzero(counts)[-1] + 1))
    return min(sizes)


def zstd(grouped: np.ndarray, alphabet: int, count: int, per: int) -> Coded:
    """Zstandard over bytes of `per` symbols."""
    level = 19 if grouped.size <= _THOROUGH_UP_TO else 3
    data = zstandard.ZstdCompressor(level=level, write_content_size=True).compress(grouped.tobytes())
    return Coded("zstd", alphabet, count, per, b"", (data,))


def decode(coded: Coded) -> np.ndarray:
    """uint8 [count]. Allocates in proportion to `count`, which is the caller's to bound, and nothing before the
    sizes were compared. Raises StreamError unless the bytes are just those of `count` symbols of the alphabet.
    """
    if coded.coding not in CODINGS or not 1 <= coded.alphabet <= 256 or coded.per not in pers(coded.alphabet):
        raise StreamError("no coding is described like that")
    symbols = {"one": _decode_one, "packed": _decode_packed, "huffman": _decode_huffman, "zstd": _decode_zstd}[
        coded.coding](coded)
    if coded.per > 1:
        symbols = _ungroup(symbols, coded)
    if symbols.size and int(symbols.max()) >= coded.alphabet:
        raise StreamError("a symbol is outside its alphabet")
    return symbols


def _decode_one(coded: Coded) -> np.ndarray:
    if len(coded.table) != 1 or coded.streams or coded.per != 1:
        raise StreamError("one symbol takes one byte")
    return np.full(coded.count, coded.table[0], np.uint8)


def _decode_packed(coded: Coded) -> np.ndarray:
    width = _width(coded.alphabet)
    if coded.table or len(coded.streams) != 1 or coded.per != 1 or (
            len(coded.streams[0]) != packed_bytes(coded.count, width)):
        raise StreamError("packed symbols take other bytes")
    return unpack(np.frombuffer(coded.streams[0], np.uint8), width, (coded.count,))


def _decode_huffman(coded: Coded) -> np.ndarray:
    size = -(-coded.count // coded.per)
    lengths = _lengths(coded.table)
    if len(lengths) > 256 or not is_complete(lengths):
        raise StreamError("the table is of no complete code")
    cuts = _cuts(size)
    if len(coded.streams) != len(cuts) + 1:
        raise StreamError(f"{size} bytes are coded in {len(cuts) + 1} streams")
    counts = np.diff([0, *cuts, size]).tolist()
    if any(count > 8 * len(stream) for count, stream in zip(counts, coded.streams, strict=True)):
        raise StreamError("the streams are too short")
    return decode_streams(coded.streams, counts, decoding_table(lengths))


def _decode_zstd(coded: Coded) -> np.ndarray:
    size = -(-coded.count // coded.per)
    if coded.table or len(coded.streams) != 1:
        raise StreamError("zstd has one stream and no table")
    data = bytes(coded.streams[0])
    try:
        # The frame says how much will come out, and zstandard would allocate just that: so ask first.
        if zstandard.get_frame_parameters(data).content_size != size:
            raise StreamError("zstd holds another number of bytes")
        plain = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).decompress(
            data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise StreamError(f"zstd says {error}") from None
    if len(plain) != size:
        raise StreamError("zstd holds another number of bytes")
    return np.frombuffer(plain, np.uint8)


def _ungroup(grouped: np.ndarray, coded: Coded) -> np.ndarray:
    bits, symbols = 8 // coded.per, np.empty(grouped.size * coded.per, np.uint8)
    for place in range(coded.per):
        symbols[place::coded.per] = grouped >> np.uint8(place * bits) & np.uint8(2**bits - 1)
    if symbols[coded.count:].any():
        raise StreamError("the last byte is not filled with zeros")
    return symbols[:coded.count]


def _width(alphabet: int) -> Int:
    return Int(max(1, (alphabet - 1).bit_length()), signed=False)


def _cuts(size: int) -> list[int]:
    """Where the second and further streams begin."""
    if size < _MANY_FROM:
        return []
    return [-(-size * i // _MANY_STREAMS) for i in range(1, _MANY_STREAMS)]


def _table(lengths: np.ndarray) -> bytes:
    return group(lengths, 2).tobytes()


def _lengths(table: bytes) -> np.ndarray:
    data = np.frombuffer(table, np.uint8)
    return (data[:, None] >> np.array([0, 4], np.uint8) & 15).reshape(-1)
