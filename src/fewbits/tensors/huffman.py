"""A Huffman code of one tensor of codes: how long each symbol's is, and what all take together."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fewbits.compress.huffman import canonical_codes, code_lengths, entropy
from fewbits.errors import EncodingError
from fewbits.numerics.given import real_numbers


@dataclass(frozen=True)
class HuffmanCode:
    """codes: the bits of each symbol, as text, first bit first; counts: how often each occurs; bits: all together;
    entropy: the bits no code of single symbols goes below, all together."""

    codes: Mapping[int, str]
    counts: Mapping[int, int]
    bits: int
    entropy: float

    @property
    def average(self) -> float:
        """Bits a symbol."""
        return self.bits / sum(self.counts.values())


def huffman(codes: npt.ArrayLike | torch.Tensor) -> HuffmanCode:
    """An optimal prefix code for whole numbers, none of its codes longer than 12 bits.

    codes: integers, any shape, at most 256 different ones. Raises EncodingError for none, for more, and for numbers
    that are not whole. Source: Huffman 1952; Larmore and Hirschberg 1990 (bounded lengths).

    >>> code = huffman([0, 0, 0, 0, 1, 1, 2, 3])
    >>> dict(code.codes), code.bits, code.average
    ({0: '0', 1: '10', 2: '110', 3: '111'}, 14, 1.75)
    """
    values = real_numbers(codes)
    if values.dtype.kind not in "iu":
        raise EncodingError(f"a Huffman code is of whole numbers, not of {values.dtype}: give codes or labels")
    symbols, counts = np.unique(values, return_counts=True)
    if not 1 <= len(symbols) <= 256:
        raise EncodingError(f"a Huffman code here is of 1 to 256 different numbers, not {len(symbols)}")
    lengths = code_lengths(counts)
    bits = canonical_codes(lengths)
    texts = {int(symbol): f"{int(code):0{int(length)}b}"[::-1]
             for symbol, code, length in zip(symbols, bits, lengths, strict=True)}
    by_symbol = dict(zip(symbols.tolist(), counts.tolist(), strict=True))
    return HuffmanCode(texts, by_symbol, int((lengths * counts).sum()), entropy(counts))
