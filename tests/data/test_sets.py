"""Data sets by name: sizes, fixed splits, file formats, and the sentences of the refusals."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fewbits.data.readers import read_idx
from fewbits.data.sets import load
from fewbits.errors import DataError

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    dims = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + dims + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, suffix: str = "", count: int = 5) -> dict[str, np.ndarray]:
    arrays = {
        "train-images-idx3-ubyte": RNG.integers(0, 256, (count, 28, 28)),
        "train-labels-idx1-ubyte": RNG.integers(0, 10, count),
        "t10k-images-idx3-ubyte": RNG.integers(0, 256, (3, 28, 28)),
        "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 3),
    }
    for name, array in arrays.items():
        data = idx(array)
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(data) if suffix == ".gz" else data)
    return arrays


def four(count: int = 6, shape: tuple[int, ...] = (4, 4)) -> dict[str, np.ndarray]:
    return {
        "train_x": RNG.integers(0, 256, (count, *shape)).astype(np.uint8),
        "train_y": np.arange(count) % 10,
        "test_x": RNG.integers(0, 256, (3, *shape)).astype(np.uint8),
        "test_y": np.arange(3),
    }


def test_digits_splits_are_fixed_and_disjoint() -> None:
    data, again = load("digits"), load("digits")
    assert (len(data.train), len(data.calibration), len(data.test)) == (643, 256, 898)
    assert data.classes == 10
    assert data.test.x.shape == (898, 1, 8, 8)
    assert int(data.train.x.max()) == 16
    assert torch.equal(data.test.x, again.test.x)
    assert data.test.y is not None
    # The frozen shuffle: a change would silently make old figures incomparable.
    assert data.test.y[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert data.normalize is not None
    normal = data.normalize(data.train.x)
    assert abs(float(normal.mean())) < 0.01
    assert abs(float(normal.std()) - 1) < 0.01


def test_digits_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install fewbits\[demo\]"):
        load("digits")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_from_idx_files(tmp_path: Path, suffix: str) -> None:
    arrays = write_mnist(tmp_path, suffix)
    data = load(f"mnist:{tmp_path}")
    assert np.array_equal(data.train.x[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    assert data.test.y is not None
    assert np.array_equal(data.test.y.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert (data.name, data.classes, len(data.calibration)) == ("mnist", 10, 5)


def test_mnist_from_files_spelled_with_a_dot_beside_a_foreign_npz(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / file.name.replace("-idx", ".idx"))
    np.savez(tmp_path / "notes.npz", other=np.zeros(3))
    assert len(load(f"mnist:{tmp_path}").train) == 5


def test_mnist_from_npz_calibrates_on_the_first_1024(tmp_path: Path) -> None:
    np.savez(tmp_path / "any_name.npz", **four(1500))
    for place in (tmp_path, tmp_path / "any_name.npz"):
        data = load(f"mnist:{place}")
        assert (len(data.train), len(data.calibration), len(data.test)) == (1500, 1024, 3)
        assert torch.equal(data.calibration.x, data.train.x[:1024])


def test_cifar10_from_the_binary_version(tmp_path: Path) -> None:
    records = RNG.integers(0, 256, (6, 2, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    for i, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        (tmp_path / name).write_bytes(records[i].tobytes())
    data = load(f"cifar10:{tmp_path}")
    assert (len(data.train), len(data.test)) == (10, 2)
    assert np.array_equal(data.train.x[3].numpy(), records[1, 1, 1:].reshape(3, 32, 32))
    assert data.test.y is not None
    assert data.test.y.tolist() == records[5, :, 0].tolist()

    (tmp_path / "data_batch_3.bin").write_bytes(b"12345")
    with pytest.raises(DataError, match=r"data_batch_3.bin has 5 bytes, no whole records of 3073"):
        load(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3.bin; put CIFAR-10's binary version there"):
        load(f"cifar10:{tmp_path}")


def test_npz_with_its_own_calibration(tmp_path: Path) -> None:
    arrays = four()
    np.savez(tmp_path / "mine.npz", **arrays, calibration_x=arrays["train_x"][4:])
    data = load(f"npz:{tmp_path / 'mine.npz'}")
    assert (data.name, data.classes, data.normalize) == ("mine", None, None)
    assert torch.equal(data.calibration.x, data.train.x[4:])
    assert data.calibration.y is None


def test_npz_of_x_and_y_serves_all_purposes(tmp_path: Path) -> None:
    x = RNG.standard_normal((1100, 7)).astype(np.float32)
    np.savez(tmp_path / "xy.npz", x=x, y=np.zeros(1100, np.uint16))
    data = load(f"npz:{tmp_path / 'xy.npz'}")
    assert data.test is data.train
    assert len(data.calibration) == 1024
    assert torch.equal(torch.cat(list(data.test.inputs(300))), torch.from_numpy(x))
    np.savez(tmp_path / "x.npz", x=x)
    assert load(f"npz:{tmp_path / 'x.npz'}").test.y is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cifar100:x", r"There is no data set 'cifar100:x'; choose one of digits, mnist:DIR, cifar10:DIR"),
        ("", r"There is no data set ''; choose one of digits"),
        ("digits:x", r"'digits:x': digits comes with scikit-learn and needs no place"),
        ("mnist", r"'mnist' does not say where the data is; write mnist:DIR"),
        ("npz:", r"'npz:' does not say where the data is; write npz:FILE"),
        ("mnist:/no/such", r"/no/such does not exist; give the directory"),
        ("npz:/no/such.npz", r"/no/such.npz does not exist: give an .npz file"),
    ],
)
def test_refuses_what_it_cannot_find(text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(text)


def test_an_empty_directory_is_told_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither train-images-idx3-ubyte \(or .gz\) nor an .npz of train_x"):
        load(f"mnist:{tmp_path}")
    with pytest.raises(DataError, match=r"lacks data_batch_1.bin, .* test_batch.bin; put CIFAR-10's binary"):
        load(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_npz_is_refused_by_name(tmp_path: Path, keep: float) -> None:
    file = tmp_path / "cut.npz"
    np.savez_compressed(file, **four())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    for text in (f"npz:{file}", f"mnist:{tmp_path}"):
        with pytest.raises(DataError, match=r"cut.npz is damaged or no .npz of plain arrays"):
            load(text)


def test_a_flipped_byte_in_an_npz_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "flipped.npz"
    np.savez(file, **four())
    data = bytearray(file.read_bytes())
    data[220] ^= 1  # among the first array's numbers: the zip's checksum catches it
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"flipped.npz is damaged"):
        load(f"npz:{file}")


def test_pickled_objects_and_single_arrays_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "objects.npz"
    np.savez(file, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"objects.npz holds Python objects"):
        load(f"npz:{file}")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"single.npy is damaged or no .npz"):
        load(f"npz:{tmp_path / 'single.npy'}")


def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    def refused(sentence: str, **changes: np.ndarray | None) -> None:
        arrays = {key: value for key, value in {**four(), **changes}.items() if value is not None}
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match=sentence):
            load(f"npz:{tmp_path / 'bad.npz'}")

    refused(r"bad.npz holds train_x, train_y, test_y and lacks test_x; save train_x", test_x=None)
    refused(r"train_x and train_y of .*bad.npz: 6 examples but labels of shape \[5\]", train_y=np.arange(5))
    refused(r"test_x and test_y of .*: labels are float64; save them as integers", test_y=np.zeros(3))
    refused(r"test_x and test_y of .*: examples are int64", test_x=np.zeros((3, 4, 4), np.int64))
    refused(r"train_x and test_x of .* differ in kind", test_x=np.zeros((3, 5, 5), np.uint8))
    refused(r"train_x and calibration_x of .* differ in kind", calibration_x=np.zeros((3, 4, 4), np.float32))


def test_labels_beyond_ten_classes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{**four(), "test_y": np.array([0, 1, 10])})
    with pytest.raises(DataError, match=r"a label is 10, and mnist has 0 to 9"):
        load(f"mnist:{tmp_path}")
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"a.npz lacks some of train_x"):
        load(f"cifar10:{tmp_path / 'a.npz'}")


def test_damaged_idx_files_are_refused_by_name(tmp_path: Path) -> None:
    good = idx(np.zeros((2, 3)))
    for name, data, sentence in (
        ("short", good[:-1], r"short has 5 bytes behind its header, which asks for 6"),
        ("long", good + b"0", r"long has more bytes behind its header, which asks for 6"),
        ("headless", good[:6], r"headless has a header of 2 axes"),
        ("empty", b"", r"empty is not an idx file of bytes"),
        ("floats", b"\x00\x00\x0d" + good[3:], r"floats is not an idx file of bytes"),
        ("cut.gz", gzip.compress(good)[:-9], r"cut.gz cannot be read"),
        ("foreign.gz", b"hello", r"foreign.gz cannot be read"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=sentence):
            read_idx(tmp_path / name)


@pytest.mark.shared
def test_the_real_sets_have_their_fixed_splits(shared: Path) -> None:
    mnist = load(f"mnist:{shared / 'data/mnist'}")
    assert (len(mnist.train), len(mnist.calibration), len(mnist.test)) == (60_000, 1024, 10_000)
    cifar = load(f"cifar10:{shared / 'data/cifar10'}")
    assert (len(cifar.train), len(cifar.calibration), len(cifar.test)) == (10_000, 1024, 500)
    assert cifar.train.x.shape[1:] == (3, 32, 32)
    assert torch.equal(cifar.calibration.x, cifar.train.x[:1024])
    assert len(cifar.draw_calibration(5)) == 1024


def test_a_file_or_a_folder_is_told_what_to_write(tmp_path):
    (tmp_path / "photographs").mkdir()
    with pytest.raises(DataError, match=r"write npz:.*data\.npz\."):
        load(str(tmp_path / "data.npz"))
    with pytest.raises(DataError, match=r"is a folder .*; write images:.*photographs"):
        load(str(tmp_path / "photographs"))
