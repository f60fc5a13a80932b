"""Data files that are small and ask for much are refused by their headers, before anything is unpacked."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import torch

from fewbits.data import readers, weights
from fewbits.data.images import USUAL_CROP, Images
from fewbits.data.llama2c import read_checkpoint
from fewbits.data.readers import read_idx, read_npz
from fewbits.data.sets import load
from fewbits.data.weights import load_weights
from fewbits.errors import DataError

pytest.importorskip("PIL")


@pytest.fixture(autouse=True)
def little_memory():
    """What Python and NumPy take, over all of a test."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6, f"{peak} bytes"


def refused(words, action, *arguments):
    with pytest.raises(DataError, match=words) as caught:
        action(*arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def idx(shape, data=b""):
    return b"\0\0\x08" + bytes([len(shape)]) + b"".join(struct.pack(">I", size) for size in shape) + data


@pytest.mark.parametrize(("data", "words"), [
    (idx((1,) * 65, b"\1"), "of 65 axes, 32 at most"), (idx((0, 2**32 - 1, 2**32 - 1)), "asks for shape"),
    (idx((2**31, 2)), "asks for shape"), (b"\0\0\x08\x03\0", "of 3 axes"), (idx((3,), b"12"), "has 2 bytes behind"),
    (idx((3,), b"1234"), "has more bytes behind"), (b"", "is not an idx file")])
@pytest.mark.parametrize("name", ["a-idx1-ubyte", "a-idx1-ubyte.gz"])
def test_idx(tmp_path, data, words, name):
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    refused(words, read_idx, tmp_path / name)


def test_an_idx_that_unpacks_to_more_than_its_header_says_is_not_unpacked(tmp_path):
    with gzip.open(tmp_path / "a.gz", "wb", compresslevel=1) as file:
        file.write(idx((10, 10)))
        for _ in range(100):
            file.write(bytes(2**20))
    refused("has more bytes behind", read_idx, tmp_path / "a.gz")


def npy_head(shape, descr="|u1"):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
    return head.getvalue()


def test_npz_whose_headers_ask_for_more_than_there_is(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    for shape, words in (((2**40,), "fewer than its shape"), ((2**62, 2**62), "fewer than its shape"),
                         ((), "is damaged"), ((1,) * 40, "fewer than its shape")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", npy_head(shape))
        refused(words, read_npz, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_head((2,)) + b"123")
    refused("more bytes than its shape", read_npz, path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(npy_head((2**24,)))
        file.write(bytes(2**24))
    monkeypatch.setattr(readers, "UNPACKED_BYTES", 2**24)
    refused("unpacks to 16777344 bytes, and 16777216 is the most", read_npz, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_head((0,)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy_head((0,)))
    refused("names an array twice", read_npz, path)


def test_what_npz_holds_comes_back(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
              "n": np.float64(3.0), "e": np.zeros((0, 3)), "s": np.array(["x", "yz"]), "b": np.array([True])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == np.asarray(array).dtype and np.array_equal(found[name], array), name
            found[name][...] = found[name]  # memory of its own


@pytest.mark.parametrize("label", [2**63, 2**31])
def test_labels_that_no_list_of_classes_has(tmp_path, label):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 1, 2, 2), np.float32), y=np.array([0, 1, 2, label], np.uint64))
    refused("labels go up to", load, f"npz:{tmp_path / 'a.npz'}")


@pytest.mark.parametrize("header", [[8, 8, 2**31 - 1, 1, 1, 8, 8], [8, 8, 8_000_000, 1, 1, 8, 8],
                                    [-8, 8, 1, 1, 1, 8, 8], [4, -11, 1, 1, 1, 3, 85], [8, 8, 1, 1, 1, -2**31, 8]])
def test_llama2c(tmp_path, header):
    (tmp_path / "a.bin").write_bytes(np.array(header, np.int32).tobytes() + bytes(4))
    refused("its header", read_checkpoint, tmp_path / "a.bin")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height):
    rows = zlib.compress(bytes(1 + width) * min(height, 50))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("data", "words"), [
    (png(60000, 1), "60000 × 1 pixels, and one side may be 32 times"), (png(13000, 13000), "and 67108864 is the most"),
    (png(300, 9), "one side may be"), (b"II*\0" + bytes(100), "neither"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "neither"),
    (png(64, 64)[:60], "damaged"), (b"", "neither")])
def test_images(tmp_path, data, words):
    (tmp_path / "a.png").write_bytes(data)
    refused(words, Images((tmp_path / "a.png",), USUAL_CROP).read)


def test_a_stride_of_0_and_packed_members(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "a.pt")
    refused("repeats few numbers", load_weights, tmp_path / "a.pt")
    torch.save({"w": torch.zeros(1).expand(10, 3)}, tmp_path / "a.pt")
    assert load_weights(tmp_path / "a.pt")["w"].shape == (10, 3)
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with archive.open("archive/data/0", "w") as file:
            file.write(bytes(2**24))
    monkeypatch.setattr(weights, "UNPACKED_BYTES", 2**23)
    refused("unpacks to", load_weights, tmp_path / "b.pt")
