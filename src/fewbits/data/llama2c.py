"""Reads the model and tokenizer files of Karpathy's llama2.c. A damaged file is refused by name."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import DataError

_HEADER = 7


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a .bin file of version 0, by the names of `fewbits.tasks.llama.Llama`; float32.

    The file: int32 width, inner width, blocks, heads, shared heads, vocabulary (negative where the head is not tied),
    context; then each kind of weight for all blocks. Raises DataError when the sizes do not add up to the file.
    Source: github.com/karpathy/llama2.c, export.py, legacy_export.
    """
    numbers = _read(path)
    header = numbers[:_HEADER].view(np.int32).tolist()
    if len(header) < _HEADER or min(abs(number) for number in header) < 1 or header[0] % header[3]:
        raise DataError(f"{path} is no llama2.c model of version 0: its header is {header}; fetch it again.")
    width, inner, blocks, head_count, shared_count, vocabulary, context = header
    shared_width = width // head_count * shared_count
    unused = context * (width // head_count)  # two tables of angles, which are computed instead
    per_block = (
        ("attention_norm", (width,)),
        ("attention.wq", (width, width)),
        ("attention.wk", (shared_width, width)),
        ("attention.wv", (shared_width, width)),
        ("attention.wo", (width, width)),
        ("ffn_norm", (width,)),
        ("feed_forward.w1", (inner, width)),
        ("feed_forward.w2", (width, inner)),
        ("feed_forward.w3", (inner, width)),
    )
    shapes = [("tok_embeddings.weight", (abs(vocabulary), width))]
    shapes += [(f"layers.{i}.{name}.weight", shape) for name, shape in per_block for i in range(blocks)]
    shapes += [("norm.weight", (width,)), ("", (unused,))]
    if vocabulary < 0:
        shapes.append(("output.weight", (-vocabulary, width)))
    expected = _HEADER + sum(math.prod(shape) for _, shape in shapes)
    if numbers.size != expected:
        raise DataError(f"{path} has {4 * numbers.size} bytes, its header asks for {4 * expected}; fetch it again.")
    state: dict[str, Tensor] = {}
    at = _HEADER
    for name, shape in shapes:
        state[name] = torch.from_numpy(numbers[at : at + math.prod(shape)].reshape(shape).copy())
        at += math.prod(shape)
    del state[""]
    state.setdefault("output.weight", state["tok_embeddings.weight"])
    return state


def _read(path: Path) -> np.ndarray:
    try:
        return np.fromfile(path, np.float32)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error


@dataclass(frozen=True)
class Tokenizer:
    """Byte-pair pieces and their scores, as SentencePiece numbers them: 1 begins a text, 3 to 258 are bytes."""

    pieces: tuple[bytes, ...]
    scores: tuple[float, ...]

    def encode(self, text: str) -> list[int]:
        """Token numbers, beginning with 1: characters (or their bytes), then the best-scored pair merged till none is.

        Source: github.com/karpathy/llama2.c, run.c, encode.
        """
        number = {piece: i for i, piece in reversed(list(enumerate(self.pieces)))}
        tokens = [number[b" "]] if text else []
        for character in text:
            whole = character.encode()
            tokens += [number[whole]] if whole in number else [byte + 3 for byte in whole]
        while True:
            merged = [number.get(self.pieces[a] + self.pieces[b]) for a, b in pairwise(tokens)]
            found = [(-self.scores[token], at, token) for at, token in enumerate(merged) if token is not None]
            if not found:
                return [1, *tokens]
            _, at, token = min(found)
            tokens[at : at + 2] = [token]

    def decode(self, tokens: list[int]) -> str:
        """The text of tokens, without the space that encoding puts first; bytes that are no UTF-8 become �."""
        pieces = (bytes([token - 3]) if token < 259 else self.pieces[token] for token in tokens if token > 2)
        return b"".join(pieces).removeprefix(b" ").decode(errors="replace")


def read_tokenizer(path: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a .bin file: int32 longest piece, then for each token float32 score, int32 length, bytes.

    Raises DataError unless the file holds exactly `vocabulary` tokens.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again.") from error
    pieces, scores, at = [], [], 4
    while at + 8 <= len(data) and len(pieces) < vocabulary:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        scores.append(float(np.frombuffer(data, np.float32, 1, at)[0]))
        pieces.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if len(pieces) != vocabulary or at != len(data):
        raise DataError(f"{path} does not hold {vocabulary} tokens; fetch it again.")
    return Tokenizer(tuple(pieces), tuple(scores))
