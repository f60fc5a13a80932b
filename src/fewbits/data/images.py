"""Photographs in a folder: PNG and JPEG files, decoded only when a batch is read."""

import csv
import io
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import DataError, FileError
from fewbits.files import opened, read_whole
from fewbits.limits import IMAGE_PIXELS, IMAGE_PROPORTION, TEXT_BYTES

_KINDS = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_ORDER_SEED = 0
_LABEL = re.compile("[0-9]{1,9}")  # int64 holds it, and no list of classes is longer
_NUMBER = re.compile("[0-9]{1,18}")
# What decoders raise over a damaged file.
_DAMAGED = (OSError, ValueError, SyntaxError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError,
            NotImplementedError, struct.error, zlib.error)
_SHOWN, _LONGEST = 60, 120  # letters of a cell, and of a decoder's words, in a message


@dataclass(frozen=True)
class Crop:
    """The short side after resizing, and the side of the square cut out of the middle; in pixels."""

    short: int = 256
    size: int = 224

    @classmethod
    def of_shape(cls, shape: Sequence[int | None] | None) -> "Crop":
        """What a network with inputs of shape [3, H, W] takes: short side 256 for 224 and 227, in that proportion else.

        Raises DataError unless the shape is that of a square RGB image. None: 256 and 224.
        """
        if shape is None:
            return USUAL_CROP
        if len(shape) != 3 or shape[0] != 3 or shape[1] is None or shape[1] != shape[2]:
            raise DataError(f"images:DIR gives square RGB images, and the network takes {list(shape)}; save an .npz.")
        size = shape[1]
        return cls(256 if size in (224, 227) else round(size * 256 / 224), size)


USUAL_CROP = Crop()


@dataclass(frozen=True, eq=False)
class Images:
    """RGB images that are still in their files; stands where `Split` has its tensor of examples.

    Indexing gives the Images at those rows; `read` decodes them all, uint8 [N, 3, size, size].
    """

    files: tuple[Path, ...]
    crop: Crop

    dtype = torch.uint8
    ndim = 4

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.files), 3, self.crop.size, self.crop.size))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | Tensor) -> "Images":
        chosen = self.files[rows] if isinstance(rows, slice) else tuple(self.files[int(row)] for row in rows)
        return Images(chosen, self.crop)

    def identity(self) -> str:
        """What tells these images from others, undecoded: name, bytes and time of each file, and the crop."""
        facts = [(file.name, status.st_size, status.st_mtime_ns) for file in self.files if (status := file.stat())]
        return f"{self.crop} {facts}"

    def read(self) -> Tensor:
        """Short side resized bilinearly, the middle cut out. Raises DataError that names a file it cannot decode."""
        return torch.stack([_decode(file, self.crop) for file in self.files])


def find_images(place: Path) -> tuple[list[Path], np.ndarray | None]:
    """The image files of a folder and their labels, int64 [N], None where nothing tells them.

    Labels come from a .csv in the folder, or beside it as FOLDER_labels.csv: a row of names, then a file (with or
    without its ending) and its class number in the first two columns; the order of its rows is kept. Else from
    folders, one per class, numbered in the order of their names (of their numbers where all are numbers). Class
    folders come interleaved by a fixed shuffle, so that a first part of them has all classes. Raises DataError.
    """
    if not place.is_dir():
        raise DataError(f"There is no folder {place}; give the one that holds the images.")
    table = _table(place)
    if table is not None:
        return _by_table(place, table)
    folders = [place / name for name in class_folders(place)]
    if not folders:
        files = _images_in(place)
        if not files:
            raise DataError(f"{place} holds no PNG or JPEG images, nor folders of them; put some there.")
        return files, None
    pairs = [(file, label) for label, folder in enumerate(folders) for file in _images_in(folder)]
    order = np.random.RandomState(_ORDER_SEED).permutation(len(pairs))
    return [pairs[i][0] for i in order], np.array([pairs[i][1] for i in order], np.int64)


def class_folders(place: Path) -> list[str]:
    """Names of the folders that hold images, by number where all are numbers, else by name."""
    names = sorted(path.name for path in place.iterdir() if path.is_dir() and _images_in(path))
    return sorted(names, key=int) if all(_NUMBER.fullmatch(name) for name in names) else names


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _KINDS and path.is_file())


def _table(place: Path) -> Path | None:
    inside = sorted(place.glob("*.csv"))
    if len(inside) > 1:
        raise DataError(f"{place} holds {len(inside)} .csv files; leave only the one with the labels there.")
    beside = place.parent / f"{place.name}_labels.csv"
    return inside[0] if inside else beside if beside.is_file() else None


def _by_table(place: Path, table: Path) -> tuple[list[Path], np.ndarray]:
    try:
        text = read_whole(table, TEXT_BYTES, "a table of labels").decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except FileError as error:
        raise DataError(str(error)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error}); save it as plain .csv.") from error
    if len(rows) < 2:
        raise DataError(f"{table} names no images; write a row of names, then a file and its class on each row.")
    here = {name: file for file in _images_in(place) for name in (file.name, file.stem)}
    files, labels = [], []
    for number, row in enumerate(rows[1:], 2):
        label = row[1].strip(" ") if len(row) > 1 else ""
        if not _LABEL.fullmatch(label):
            told = ",".join(row)[:_SHOWN]
            raise DataError(f"Row {number} of {table} is {told!r}; write a file and its class from 0.")
        if row[0] not in here:
            raise DataError(f"Row {number} of {table} names {row[0][:_SHOWN]!r}, and {place} has no such image; put it "
                            "there.")
        files.append(here[row[0]])
        labels.append(int(label))
    return files, np.array(labels, np.int64)


def _decode(file: Path, crop: Crop) -> Tensor:
    try:
        from PIL import Image, UnidentifiedImageError  # an optional extra
    except ImportError:
        raise DataError("Reading images needs Pillow, absent here; pip install pillow.") from None
    try:
        with opened(file, "an image") as stream, Image.open(stream, formats=_FORMATS) as image:
            _check_size(file, image.size)
            image = image.convert("RGB")
    except FileError as error:
        raise DataError(str(error)) from None
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        told = "its first bytes are of neither" if isinstance(error, UnidentifiedImageError) else str(error)[:_LONGEST]
        raise DataError(f"{file} is damaged or no PNG or JPEG image ({told}); fetch it again or take it out.") \
            from error
    scale = crop.short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - crop.size) // 2, (image.height - crop.size) // 2
    image = image.crop((left, top, left + crop.size, top + crop.size))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _check_size(file: Path, size: tuple[int, int]) -> None:
    """Raises DataError, before anything is decoded, for an image of more pixels than any needs, or so thin that
    resizing makes it one."""
    if size[0] * size[1] > IMAGE_PIXELS:
        raise DataError(f"{file} has {size[0]} × {size[1]} pixels, and {IMAGE_PIXELS} is the most; make it smaller.")
    if max(size) > IMAGE_PROPORTION * min(size):
        raise DataError(f"{file} is {size[0]} × {size[1]} pixels, and one side may be {IMAGE_PROPORTION} times the "
                        "other at most; cut it.")
