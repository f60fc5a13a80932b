"""Data sets by name, as typed after `--data`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from fewbits.data import normalize
from fewbits.data.images import USUAL_CROP, Crop, Images, class_folders, find_images
from fewbits.data.readers import read_cifar10_binary, read_idx, read_npz
from fewbits.data.split import DataSet, Split
from fewbits.errors import DataError

_CALIBRATION = 1024
_PHOTOGRAPHS = 64
_FOUR = ("train_x", "train_y", "test_x", "test_y")


def load(text: str, shape: Sequence[int | None] | None = None) -> DataSet:
    """The data set named by `text`: `digits`, `mnist:DIR`, `cifar10:DIR`, `images:DIR` or `npz:FILE`.

    shape: of one input of the network, for which images are cut out. Raises DataError for an unknown name, missing or
    damaged files, or arrays that do not fit together.
    """
    name, _, place = text.partition(":")
    if name == "digits":
        if place:
            raise DataError(f"{text!r}: digits comes with scikit-learn and needs no place; write `digits`.")
        return digits()
    if name not in _PLACED:
        if text.endswith(".npz"):
            raise DataError(f"{text!r} is a file and names no kind of data set; write npz:{text}.")
        if text and Path(text).expanduser().is_dir():
            raise DataError(f"{text!r} is a folder and names no kind of data set; write images:{text}, mnist:{text} or "
                            f"cifar10:{text}.")
        known = ", ".join(("digits", *(f"{known}:{what}" for known, (_, what) in _PLACED.items())))
        raise DataError(f"There is no data set {text!r}; choose one of {known}.")
    loader, what = _PLACED[name]
    if not place:
        raise DataError(f"{text!r} does not say where the data is; write {name}:{what}.")
    path = Path(place).expanduser()
    return images(path, Crop.of_shape(shape)) if loader is images else loader(path)


def digits() -> DataSet:
    """The 1797 handwritten 8x8 digits of scikit-learn, uint8 0..16: 643 train, 256 calibration, 898 test.

    Raises DataError when scikit-learn is not installed. Source: Alpaydin and Kaynak 1998, UCI, CC BY 4.0.
    """
    try:
        from sklearn.datasets import load_digits  # an optional extra, and slow to import
    except ImportError:
        raise DataError("The digits need scikit-learn, absent here; pip install fewbits[demo].") from None
    x, y = load_digits(return_X_y=True)
    images = np.asarray(x).reshape(-1, 8, 8).astype(np.uint8)
    # RandomState and not default_rng: numpy guarantees its stream never changes, so the splits never do.
    order = np.random.RandomState(0).permutation(len(images))
    whole = Split.from_arrays(images[order], np.asarray(y)[order], "digits")
    return DataSet(
        name="digits",
        test=whole.subset(range(898)),
        calibration=whole.subset(range(898, 898 + 256)),
        train=whole.subset(range(898 + 256, len(whole))),
        classes=10,
        normalize=normalize.DIGITS,
    )


def mnist(place: Path) -> DataSet:
    """MNIST, uint8 [N, 1, 28, 28]; calibration is the first 1024 of the training images.

    place: a directory with the four idx files (plain or .gz) or with an .npz of train_x, train_y, test_x,
    test_y, or such an .npz itself.
    """
    arrays = _four_of_npz(place) or {key: read_idx(_idx_file(place, key)) for key in _FOUR}
    return _ten_classes("mnist", arrays, place, normalize.MNIST)


def cifar10(place: Path) -> DataSet:
    """CIFAR-10, uint8 [N, 3, 32, 32]; calibration is the first 1024 of the training images.

    place: a directory with an .npz of train_x, train_y, test_x, test_y, or such an .npz itself, or a
    directory with the official binary version (data_batch_1.bin ... test_batch.bin), of which all 10 000 test
    images are the test split. The Python version is pickled and not read.
    """
    arrays = _four_of_npz(place) or _cifar10_of_binary(place)
    return _ten_classes("cifar10", arrays, place, normalize.IMAGENET)


def npz(place: Path) -> DataSet:
    """Any data from one .npz: train_x, train_y, test_x, test_y and perhaps calibration_x; or x and perhaps y.

    Calibration is calibration_x, or else the first 1024 training examples. With x and y alone the same
    examples serve as training, calibration (the first 1024) and test: fit for a look, not for a claim.
    """
    arrays = read_npz(place)
    if "x" in arrays and not arrays.keys() & {*_FOUR, "calibration_x"}:
        whole = Split.from_arrays(arrays["x"], arrays.get("y"), f"x and y of {place}")
        return DataSet(place.stem, train=whole, calibration=_first(whole), test=whole)
    missing = [key for key in _FOUR if key not in arrays]
    if missing:
        raise DataError(
            f"{place} holds {', '.join(arrays) or 'nothing'} and lacks {', '.join(missing)}; "
            f"save {', '.join(_FOUR)} (and calibration_x), or x and y."
        )
    train, test = _train_and_test(arrays, place)
    calibration = _first(train)
    if "calibration_x" in arrays:
        calibration = Split.from_arrays(arrays["calibration_x"], None, f"calibration_x of {place}")
        _same_kind(train, calibration, f"train_x and calibration_x of {place}")
    return DataSet(place.stem, train=train, calibration=calibration, test=test)


def images(place: Path, crop: Crop = USUAL_CROP) -> DataSet:
    """Photographs, uint8 [N, 3, size, size], decoded batch by batch; labels as `find_images` says.

    place: a directory with `train` and `val` (or `test`) directories, of which calibration is the first 1024 of the
    first; or one directory, of which calibration and training are the first 64 images (the first third of fewer than
    192) and test is the rest.
    """
    tests = [folder for name in ("val", "test") if (folder := place / name).is_dir()]
    if (place / "train").is_dir() and tests:
        if class_folders(place / "train") != class_folders(tests[0]):
            raise DataError(f"{place / 'train'} and {tests[0]} hold different classes; give both the same folders.")
        train, test = _images(place / "train", crop), _images(tests[0], crop)
        calibration = _first(train)
    else:
        whole = _images(place, crop)
        if len(whole) < 3:
            raise DataError(f"{place} holds {len(whole)} image(s), too few to calibrate and test; put 3 or more there.")
        count = min(_PHOTOGRAPHS, len(whole) // 3)
        train = calibration = whole.take(count)
        test = whole.subset(range(count, len(whole)))
    return DataSet(place.name, train=train, calibration=calibration, test=test)


def _images(place: Path, crop: Crop) -> Split:
    files, labels = find_images(place)
    return Split(Images(tuple(files), crop), None if labels is None else torch.from_numpy(labels))


_PLACED: Mapping[str, tuple[Callable[[Path], DataSet], str]] = MappingProxyType(
    {"mnist": (mnist, "DIR"), "cifar10": (cifar10, "DIR"), "images": (images, "DIR"), "npz": (npz, "FILE")}
)


def _first(split: Split) -> Split:
    return split.take(min(_CALIBRATION, len(split)))


def _train_and_test(arrays: Mapping[str, np.ndarray], place: Path) -> tuple[Split, Split]:
    train = Split.from_arrays(arrays["train_x"], arrays["train_y"], f"train_x and train_y of {place}")
    test = Split.from_arrays(arrays["test_x"], arrays["test_y"], f"test_x and test_y of {place}")
    _same_kind(train, test, f"train_x and test_x of {place}")
    return train, test


def _same_kind(one: Split, other: Split, source: str) -> None:
    if one.x.dtype != other.x.dtype or one.x.shape[1:] != other.x.shape[1:]:
        raise DataError(f"{source} differ in kind: {one} and {other}; save both with one dtype and shape.")


def _ten_classes(
    name: str, arrays: Mapping[str, np.ndarray], place: Path, usual: normalize.Normalize
) -> DataSet:
    train, test = _train_and_test(arrays, place)
    for split in (train, test):
        highest = 0 if split.y is None else int(split.y.max())
        if highest > 9:
            raise DataError(f"{place}: a label is {highest}, and {name} has 0 to 9; fetch the files again.")
    return DataSet(name, train=train, calibration=_first(train), test=test, classes=10, normalize=usual)


def _four_of_npz(place: Path) -> Mapping[str, np.ndarray] | None:
    """The arrays of the .npz at or in `place` that has all four keys; None when a directory has none."""
    if not place.exists():
        raise DataError(f"{place} does not exist; give the directory that holds the data.")
    files = [place] if place.is_file() else sorted(place.glob("*.npz"))
    for file in files:
        arrays = read_npz(file)
        if all(key in arrays for key in _FOUR):
            return arrays
    if place.is_file():
        raise DataError(f"{place} lacks some of {', '.join(_FOUR)}; save them all under these names.")
    return None


def _idx_file(place: Path, key: str) -> Path:
    stem = {"train": "train", "test": "t10k"}[key[:-2]]
    kind = {"x": "images-idx3", "y": "labels-idx1"}[key[-1]]
    name = f"{stem}-{kind}-ubyte"
    # Some copies of the files are spelled with a dot: train-images.idx3-ubyte.
    for spelled in (name, name.replace("-idx", ".idx")):
        for file in (place / spelled, place / f"{spelled}.gz"):
            if file.is_file():
                return file
    raise DataError(f"{place} has neither {name} (or .gz) nor an .npz of {', '.join(_FOUR)}; put one there.")


def _cifar10_of_binary(place: Path) -> Mapping[str, np.ndarray]:
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    missing = [name for name in names if not (place / name).is_file()]
    if missing:
        raise DataError(
            f"{place} has no .npz of {', '.join(_FOUR)} and lacks {', '.join(missing)}; "
            "put CIFAR-10's binary version there (the Python version is not read, for it is pickled)."
        )
    *train, test = (read_cifar10_binary(place / name) for name in names)
    return {
        "train_x": np.concatenate([x for x, _ in train]),
        "train_y": np.concatenate([y for _, y in train]),
        "test_x": test[0],
        "test_y": test[1],
    }
