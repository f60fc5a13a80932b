"""Reads the model files of Karpathy's llama2.c. A damaged file is refused by name."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import DataError, FileError
from fewbits.files import read_whole
from fewbits.limits import CHECKPOINT_BYTES

_HEADER = 7  # numbers
_VOCABULARY = 5  # the place of the only one that may be negative


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a .bin file of version 0, by the names of `fewbits.tasks.llama.Llama`; float32.

    The file: int32 width, inner width, blocks, heads, shared heads, vocabulary (negative where the head is not tied),
    context; then each kind of weight for all blocks. Raises DataError when the sizes do not add up to the file.
    Source: github.com/karpathy/llama2.c, export.py, legacy_export.
    """
    numbers = _read(path)
    header = numbers[:_HEADER].view(np.int32).tolist()
    sizes = [abs(number) if at == _VOCABULARY else number for at, number in enumerate(header)]
    if len(header) < _HEADER or min(sizes) < 1 or header[0] % header[3]:
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
    each = sum(math.prod(shape) for _, shape in per_block)
    ends = abs(vocabulary) * width * (2 if vocabulary < 0 else 1) + width + unused
    expected = _HEADER + blocks * each + ends
    if numbers.size != expected:  # before a shape is listed for each of the blocks
        raise DataError(f"{path} has {4 * numbers.size} bytes, its header asks for {4 * expected}; fetch it again.")
    shapes = [("tok_embeddings.weight", (abs(vocabulary), width))]
    shapes += [(f"layers.{i}.{name}.weight", shape) for name, shape in per_block for i in range(blocks)]
    shapes += [("norm.weight", (width,)), ("", (unused,))]
    if vocabulary < 0:
        shapes.append(("output.weight", (-vocabulary, width)))
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
        data = read_whole(path, CHECKPOINT_BYTES, "a llama2.c model")
    except FileError as error:
        raise DataError(str(error)) from None
    return np.frombuffer(data, np.float32, len(data) // 4)
