"""What a data set is: three splits, each read in batches as often as wanted."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fewbits.data.images import Images
from fewbits.data.normalize import Normalize
from fewbits.errors import DataError
from fewbits.limits import LABELS
from fewbits.storage.digests import add_tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and, where known, their labels.

    x: uint8 [N, C, H, W] (or [N, ...]) as stored, or float32 [N, ...] as the network takes it, or int64 [N, ...] token
    numbers, or Images that are decoded when a batch is read; y: int64 [N].
    Raises DataError on another dtype, no examples, or as many labels as there are not examples.
    """

    x: Tensor | Images
    y: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.dtype not in (torch.uint8, torch.float32, torch.int64) or self.x.ndim < 2 or not len(self.x):
            raise DataError(
                f"Examples must be uint8, float32 or int64 of shape [N, ...], N > 0; convert {_describe(self.x)}."
            )
        if self.y is not None and (self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]):
            raise DataError(
                f"Labels must be int64 [{len(self.x)}], one per example, not {_describe(self.y)}; mend them."
            )

    @classmethod
    def from_arrays(cls, x: np.ndarray, y: np.ndarray | None, source: str) -> "Split":
        """Check and adopt arrays; bytes become channels-first.

        x: uint8 or float32. Among uint8, [N, H, W] gets a channel axis, and [N, H, W, C] is recognised by a
        last axis of 1, 3 or 4 where axis 1 is not; float32 stays as it is. y: integers [N], none negative.
        Raises DataError that begins with `source`.
        """
        if x.dtype not in (np.uint8, np.float32):
            raise DataError(f"{source}: examples are {x.dtype}; save them as uint8 or float32.")
        if x.ndim < 2 or x.size == 0:
            raise DataError(f"{source}: examples have shape {list(x.shape)}; save them as [N, ...], N > 0.")
        if y is not None:
            _check_labels(y, len(x), source)
        examples = _channels_first(x) if x.dtype == np.uint8 else x
        labels = None if y is None else torch.from_numpy(y.astype(np.int64))
        return cls(torch.from_numpy(np.ascontiguousarray(examples)), labels)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Split(x={_describe(self.x)}, y={None if self.y is None else _describe(self.y)})"

    def take(self, n: int) -> "Split":
        """The first n examples (a view). Raises DataError when there are not so many."""
        if not 0 < n <= len(self):
            raise DataError(f"Cannot take {n} of {len(self)} examples; ask for 1 to {len(self)}.")
        return Split(self.x[:n], None if self.y is None else self.y[:n])

    def subset(self, indices: Sequence[int] | Tensor) -> "Split":
        """The examples at `indices`, in that order (a copy). Raises DataError when one is out of range."""
        at = torch.as_tensor(indices, dtype=torch.int64)
        if at.numel() == 0 or int(at.min()) < 0 or int(at.max()) >= len(self):
            raise DataError(
                f"A subset of {len(self)} examples takes indices from 0 to {len(self) - 1}; give one or more."
            )
        return Split(self.x[at], None if self.y is None else self.y[at])

    def relabelled(self, offset: int) -> "Split":
        """The same examples with `offset` added to every label. Raises DataError when one falls below 0."""
        if self.y is None or not offset:
            return self
        if int(self.y.min()) + offset < 0:
            raise DataError(f"A label offset of {offset} takes label {int(self.y.min())} below 0; give another.")
        return Split(self.x, self.y + offset)

    def digest(self) -> str:
        """SHA-256 of the examples and labels; of images still in their files the names, sizes and times of these."""
        found = hashlib.sha256()
        if isinstance(self.x, Images):
            found.update(self.x.identity().encode())
        else:
            add_tensor(found, self.x)
        if self.y is not None:
            add_tensor(found, self.y)
        return found.hexdigest()

    def inputs(self, batch_size: int, normalize: Normalize | None = None) -> "Inputs":
        """Re-iterable batches of inputs only, for calibration; see `Inputs`."""
        return Inputs(self, batch_size, normalize)

    def batches(
        self, batch_size: int, normalize: Normalize | None = None, generator: torch.Generator | None = None
    ) -> "Batches":
        """Re-iterable batches of (inputs, labels); shuffled anew in each pass if given a generator."""
        return Batches(self, batch_size, normalize, generator)


@dataclass(frozen=True, eq=False)
class Inputs:
    """A view of a split that yields float32 [B, ...], each batch normalised only when it is read.

    The last batch may be smaller. float32 examples are taken as they are: `normalize` is for bytes only.
    Raises DataError for uint8 examples without a Normalize, or a batch size below 1.
    """

    split: Split
    batch_size: int
    normalize: Normalize | None = None

    def __post_init__(self) -> None:
        _check_view(self.split, self.batch_size, self.normalize)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def digest(self) -> str:
        """SHA-256 of the examples and how they are normalised; their batches are not counted."""
        return hashlib.sha256(f"{self.split.digest()} {self.normalize}".encode()).hexdigest()

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.split), self.batch_size):
            yield _floats(self.split.x[start : start + self.batch_size], self.normalize)


@dataclass(frozen=True, eq=False)
class Batches:
    """A view of a split that yields (float32 [B, ...], int64 [B]); as `Inputs`, with labels.

    generator: draws a new order at the start of each pass; None keeps the stored order.
    Raises DataError also when the split has no labels.
    """

    split: Split
    batch_size: int
    normalize: Normalize | None = None
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _check_view(self.split, self.batch_size, self.normalize)
        if self.split.y is None:
            raise DataError("These examples have no labels; add them, or use the data for calibration only.")

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = self.split.x, self.split.y
        assert y is not None
        order = None if self.generator is None else torch.randperm(len(x), generator=self.generator)
        for start in range(0, len(x), self.batch_size):
            rows = slice(start, start + self.batch_size)
            if order is not None:
                rows = order[rows]
            yield _floats(x[rows], self.normalize), y[rows]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with fixed splits, so that figures compare.

    classes: how many labels there are, None where the data does not say. normalize: what the set is usually
    normalised by, None where there is no custom; a network's own (`Task.normalize`) goes before it.
    """

    name: str
    train: Split
    calibration: Split
    test: Split
    classes: int | None = None
    normalize: Normalize | None = None

    def relabelled(self, offset: int) -> "DataSet":
        """With `offset` added to every label, as `Split.relabelled`; 0 gives the data set itself."""
        if not offset:
            return self
        train, calibration, test = (split.relabelled(offset) for split in (self.train, self.calibration, self.test))
        classes = None if self.classes is None else self.classes + offset
        return replace(self, train=train, calibration=calibration, test=test, classes=classes)

    def draw_calibration(self, seed: int) -> Split:
        """The fixed calibration split for seed 0; for another seed as many random training examples."""
        if seed == 0:
            return self.calibration
        count = min(len(self.calibration), len(self.train))
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return self.train.subset(order[:count])


def _describe(x: Tensor | Images) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


def _check_labels(y: np.ndarray, count: int, source: str) -> None:
    if y.dtype.kind not in "iu":
        raise DataError(f"{source}: labels are {y.dtype}; save them as integers.")
    if y.shape != (count,):
        raise DataError(
            f"{source}: {count} examples but labels of shape {list(y.shape)}; save one label per example."
        )
    if y.min() < 0:
        raise DataError(f"{source}: labels go down to {y.min()}; number the classes from 0.")
    if y.max() >= LABELS:
        raise DataError(f"{source}: labels go up to {y.max()}, {LABELS - 1} at most; number the classes from 0.")


def _channels_first(x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    return x


def _check_view(split: Split, batch_size: int, normalize: Normalize | None) -> None:
    if batch_size < 1:
        raise DataError(f"A batch size of {batch_size} holds nothing; give 1 or more.")
    if split.x.dtype == torch.uint8 and normalize is None:
        raise DataError("The examples are bytes and nothing says how to normalise them; give mean and std.")


def _floats(x: Tensor | Images, normalize: Normalize | None) -> Tensor:
    if isinstance(x, Images):
        x = x.read()
    if x.dtype == torch.uint8:
        assert normalize is not None
        return normalize(x)
    return x
