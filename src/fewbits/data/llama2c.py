"""Reads the model files of Karpathy's llama2.c. A damaged file is refused by name."""

import math
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
