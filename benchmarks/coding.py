"""Speeds of coding weight codes beside zlib and zstd, and of exact k-means: `python -m benchmarks.coding`.

One thread, CPU time, the median of three. MB/s are of codes, one byte each. `--round-trip 100000000` instead sends that
many codes through the coder that the file uses, compares them, and says how much memory that took.
"""

import argparse
import resource
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from rich.console import Console
from rich.table import Table

from fewbits.compress import stream
from fewbits.compress.huffman import canonical_codes, code_lengths, decoding_table, entropy
from fewbits.kernels import library
from fewbits.kernels.histogram import histogram
from fewbits.kernels.huffman import decode_streams, encode_stream
from fewbits.ranges.kmeans import optimal

_DRAWN_AT_ONCE = 2**20


def _sources(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(size, dtype=np.float32)
    four = np.clip(np.rint(normal / 0.35) + 8, 0, 15).astype(np.uint8)
    return {"4 bits": four, "8 bits": np.clip(np.rint(normal * 25) + 128, 0, 255).astype(np.uint8),
            "4 bits, 90 % zeros": np.where(rng.random(size) < 0.9, 0, four).astype(np.uint8)}


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    times, result = [], None
    for _ in range(3):
        start = time.process_time()
        result = work()
        times.append(time.process_time() - start)
    return statistics.median(times), result


def _coders(symbols: np.ndarray) -> dict[str, tuple[Callable[[], Any], Callable[[Any], bytes]]]:
    data = symbols.tobytes()
    counts = histogram(symbols)
    lengths = code_lengths(counts)
    codes, table = canonical_codes(lengths), decoding_table(lengths)
    quarters = np.split(symbols, 4)

    def deflate(strategy: int, level: int) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
        return packer.compress(data) + packer.flush()

    def pairs() -> stream.Coded:
        coded = stream.huffman(stream.group(symbols, 2), 16, symbols.size, 2)
        assert coded is not None
        return coded

    grouped = {"the same, two codes a byte": (pairs, lambda made: stream.decode(made).tobytes())}
    return {
        "fewbits Huffman, 4 streams": (lambda: [encode_stream(part, codes, lengths) for part in quarters],
                                       lambda made: decode_streams(made, [part.size for part in quarters],
                                                                   table).tobytes()),
        **(grouped if symbols.max() < 16 else {}),
        "zlib, Huffman only": (lambda: deflate(zlib.Z_HUFFMAN_ONLY, 6), lambda made: zlib.decompress(made, -15)),
        "zlib, level 6": (lambda: deflate(zlib.Z_DEFAULT_STRATEGY, 6), lambda made: zlib.decompress(made, -15)),
        "zstd, level 1": (lambda: zstandard.ZstdCompressor(level=1).compress(data),
                          lambda made: zstandard.ZstdDecompressor().decompress(made)),
        "zstd, level 3": (lambda: zstandard.ZstdCompressor(level=3).compress(data),
                          lambda made: zstandard.ZstdDecompressor().decompress(made)),
    }


def _round_trip(size: int, console: Console) -> None:
    symbols = np.empty(size, np.uint8)
    for start in range(0, size, _DRAWN_AT_ONCE):
        symbols[start:start + _DRAWN_AT_ONCE] = _sources(min(_DRAWN_AT_ONCE, size - start), start)["4 bits"]
    before = _most_memory()
    start = time.process_time()
    coded = stream.encode(symbols, 16)
    middle, encoding = time.process_time(), _most_memory() - before
    again = stream.decode(coded)
    end, most = time.process_time(), _most_memory() - before
    assert again.tobytes() == symbols.tobytes(), "other codes came back"
    bound = entropy(histogram(symbols)) / size
    console.print(
        f"{size} codes: {coded.coding}, {coded.size} bytes, {8 * coded.size / size:.3f} bits a code, entropy "
        f"{bound:.3f}\n"
        f"all candidates encoded in {middle - start:.1f} s, decoded in {end - middle:.1f} s, the same bytes\n"
        f"memory beside the codes themselves: {encoding / size:.1f} bytes a code at most to encode, "
        f"{most / size:.1f} with decoding", highlight=False)


def _most_memory() -> int:
    """Bytes, resident, the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=16_000_000)
    parser.add_argument("--round-trip", type=int, help="Only encode and decode so many codes, and compare")
    arguments = parser.parse_args()
    console = Console(width=120)
    if arguments.round_trip:
        _round_trip(arguments.round_trip, console)
        return
    for what, symbols in _sources(arguments.symbols // 4 * 4).items():
        bound = entropy(histogram(symbols)) / symbols.size
        table = Table("coder", "bits a code", "encode, MB/s", "decode, MB/s",
                      title=f"{what}, {symbols.size} codes, entropy {bound:.3f} bits, kernels {library.level()}")
        for name, (encode, decode) in _coders(symbols).items():
            spent, made = _seconds(encode)
            back, plain = _seconds(lambda decode=decode, made=made: decode(made))
            assert plain == symbols.tobytes(), name
            size = sum(map(len, made)) if isinstance(made, list) else made.size if isinstance(made, stream.Coded) else (
                len(made))
            table.add_row(name, f"{8 * size / symbols.size:.3f}", f"{symbols.size / spent / 1e6:.0f}",
                          f"{symbols.size / back / 1e6:.0f}")
        console.print(table)
    _clusters(console)


def _clusters(console: Console) -> None:
    weights = np.random.default_rng(0).standard_normal(10_000_000, dtype=np.float32) * np.float32(0.02)
    kinds = {"fp16": weights.astype(np.float16), "bf16": (weights.view(np.uint32) & 0xFFFF0000).view(np.float32)}
    for kind, some in kinds.items():
        for level in library.levels():
            with library.use(level):
                spent, clusters = _seconds(lambda some=some: optimal(some, 16))
            console.print(f"exact k-means, 10 million {kind} weights, k = 16, {level}: {spent:.3f} s, "
                          f"squared error {clusters.sse:.6g}", highlight=False)
    spent, clusters = _seconds(lambda: optimal(weights, 16))
    console.print(f"k-means in 65 536 bins, 10 million fp32 weights, k = 16: {spent:.3f} s, squared error "
                  f"{clusters.sse:.8g}, none below {clusters.bound:.8g}", highlight=False)


if __name__ == "__main__":
    main()
