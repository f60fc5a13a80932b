"""Texts for the language models, and what they are measured by."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from fewbits.errors import DataError

Sequences = Iterable[tuple[Tensor, Tensor]]


def character_windows(text: str, characters: str, length: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (inputs, next ones), int64 [B, length], of the text cut into windows of length + 1 characters.

    characters: the vocabulary, by number. A window that the text cannot fill is left out. Raises DataError for a
    character outside the vocabulary, or a text shorter than a window.
    """
    number = {character: i for i, character in enumerate(characters)}
    unknown = sorted(set(text) - number.keys())
    if unknown:
        raise DataError(f"The text holds {unknown[0]!r}, which the network has no number for; leave it out.")
    count = len(text) // (length + 1)
    if not count:
        raise DataError(f"The text has {len(text)} characters and a window {length + 1}; give a longer one.")
    windows = torch.tensor([number[c] for c in text[: count * (length + 1)]]).reshape(count, length + 1)
    for batch in windows.split(batch_size):
        yield batch[:, :-1], batch[:, 1:]


def stories(tokens: Tensor, offsets: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, next ones), int64 [1, T], of each story tokens[offsets[i]:offsets[i+1]]."""
    for start, end in pairwise(offsets):
        story = tokens[None, start:end].long()
        yield story[:, :-1], story[:, 1:]


@torch.no_grad()
def negative_log_likelihood(model: torch.nn.Module, batches: Sequences) -> tuple[float, float]:
    """(mean nats a token, share of tokens that were the likeliest), over all tokens of (inputs, next ones)."""
    total, right, count = 0.0, 0, 0
    for tokens, following in batches:
        logits = model(tokens).flatten(0, 1)
        total += F.cross_entropy(logits.double(), following.flatten(), reduction="sum").item()
        right += int((logits.argmax(1) == following.flatten()).sum())
        count += following.numel()
    return total / count, right / count
