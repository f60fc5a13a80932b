"""Compressed weights: lossless for every type, sizes to the byte, lazy, and refused when they are not whole."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from benchmarks.fuzz.weights import mutations, read, reforged, seed_file
from torch import Tensor

from fewbits.artifact.file import read as read_program
from fewbits.artifact.weight_facts import WIDTHS, packed_facts, unpacked_facts
from fewbits.artifact.weights import _TYPES, WeightsFile, holds_weights, save_weights, weights_bytes
from fewbits.compress.coded import with_order
from fewbits.compress.share import share
from fewbits.errors import FewbitsError, FileError
from fewbits.storage.container import HEADER_LIMIT, build, to_json
from fewbits.storage.refusal import Refusal

WHOLE = seed_file()


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(
        one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("kind", sorted(WIDTHS))
def test_every_type_comes_back_bit_by_bit(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    dtype = _TYPES[kind]

    def noise(*shape: int) -> Tensor:
        size = int(np.prod(shape)) * WIDTHS[kind]
        data = torch.randint(0, 2 if kind == "BOOL" else 256, (size,), generator=generator, dtype=torch.uint8)
        return data.view(dtype).reshape(shape)

    state = {"bits": noise(7, 5, 3), "scalar": noise(), "empty": noise(0, 4), "zeros": torch.zeros(50, 60).to(dtype),
             "plain": torch.randn(40, 40, generator=generator).to(dtype)}
    path = tmp_path / "a.fewbits"
    size = save_weights(state, path)
    assert size == path.stat().st_size
    file = WeightsFile(path)
    assert file.names == tuple(state)
    assert all(same(file.tensor(name), tensor) for name, tensor in state.items())
    assert sum(item.bytes for item in file.items()) == size


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("density", [1.0, 0.5, 0.05, 0.0])
def test_shared_weights_come_back(bits: int, density: float) -> None:
    rng = np.random.default_rng(bits)
    weight = rng.standard_normal((40, 150)).astype(np.float32)
    mask = None if density == 1 else rng.random(weight.shape) < density
    shared = share(weight, 2**bits, mask=mask, group=150 if density == 0.5 else None)
    file = WeightsFile.of_bytes(weights_bytes({"w": torch.from_numpy(weight)}, {"w": shared}, "a"))
    again = file.shared("w")
    assert again is not None
    np.testing.assert_array_equal(again.codes, shared.codes)
    np.testing.assert_array_equal(again.centroids, shared.centroids)
    np.testing.assert_array_equal(file.tensor("w").numpy(), shared.dense())
    assert sum(item.bytes for item in file.items()) == file.size
    assert file.bounds()["w"] <= sum(item.bytes for item in file.items() if item.layer) + 1


@pytest.mark.parametrize("order", ["zeros", "mask", "fillers", "escapes"])
def test_every_order_of_positions(order, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((30, 100)).astype(np.float32)
    shared = share(weight, 8, mask=rng.random(weight.shape) < 0.03)
    limit = 16 if order in ("fillers", "escapes") else 0
    monkeypatch.setattr("fewbits.artifact.weights.encode_shared", lambda one: with_order(one, order, limit))
    file = WeightsFile.of_bytes(weights_bytes({"w": torch.from_numpy(weight)}, {"w": shared}, "a"))
    np.testing.assert_array_equal(file.tensor("w").numpy(), shared.dense())
    parts = {item.part: item.bytes for item in file.items() if item.layer}
    assert {"codes", "codebook"} <= parts.keys()
    assert ("fillers" in parts) == (order == "fillers")
    assert sum(item.bytes for item in file.items()) == file.size


def test_the_same_weights_give_the_same_bytes() -> None:
    assert seed_file() == WHOLE


def test_reading_one_tensor_touches_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.fewbits"
    big = torch.from_numpy(np.random.default_rng(0).integers(0, 256, 2**22, np.uint8))
    save_weights({"big": big, "small": torch.arange(5)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # inside `big`
    path.write_bytes(data)
    tracemalloc.start()
    file = WeightsFile(path)
    assert file.tensor("small").tolist() == [0, 1, 2, 3, 4]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**18
    with pytest.raises(FileError, match="damaged in tensor 'big'"):
        file.tensor("big")


def test_one_kind_of_file_is_told_from_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.fewbits"
    path.write_bytes(WHOLE)
    assert holds_weights(path)
    with pytest.raises(FileError, match="compressed weights"):
        read_program(path)
    path.write_bytes(build({"a": np.zeros(3, np.float32)}, "x"))
    assert not holds_weights(path)
    with pytest.raises(FileError, match="no compressed weights"):
        WeightsFile(path)


@pytest.mark.parametrize("path", ["absent", "", "a\0b"])
def test_paths_that_hold_no_file(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        WeightsFile(tmp_path / path)


def test_a_name_of_our_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"'fewbits\.x'"):
        save_weights({"fewbits.x": torch.zeros(2)}, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_every_truncation_is_refused() -> None:
    data = WHOLE
    for length in range(0, len(data), 7):
        with pytest.raises(FileError):
            read(data[:length])


def test_damaged_files_are_refused_or_give_the_original() -> None:
    data = WHOLE
    original, refused = read(data), 0
    for mutant in mutations(data, 2000, seed=0):
        try:
            assert read(mutant) == original
        except FileError:
            refused += 1
    assert refused > 1500


def test_forged_files_are_refused_or_decode_within_bounds() -> None:
    """Hashes made right again, so that every decoder meets hostile bytes; the command does many more."""
    refused = 0
    for number, mutant in enumerate(reforged(WHOLE, 2000, seed=0)):
        if number % 40 == 0:
            tracemalloc.start()
        try:
            read(mutant)
        except FewbitsError:
            refused += 1
        if tracemalloc.is_tracing():
            assert tracemalloc.get_traced_memory()[1] < 2**23
            tracemalloc.stop()
    assert refused > 1000


def test_facts_are_unpacked_within_bounds() -> None:
    facts = {f"layer{i}": {"type": "F32", "shape": [3, 3]} for i in range(100)}
    packed = packed_facts(facts)
    assert packed.startswith(zstandard.FRAME_HEADER) and len(packed) < len(to_json(facts)) / 4
    assert unpacked_facts(packed) == unpacked_facts(to_json(facts)) == facts
    assert packed_facts({}) == b"{}"
    bomb = zstandard.ZstdCompressor().compress(b" " * (HEADER_LIMIT + 1))
    stranger = zstandard.ZstdCompressor(write_content_size=False).compress(b"{}")
    for bad in (bomb, stranger):
        with pytest.raises(Refusal, match="more than"):
            unpacked_facts(bad)
    for bad in (packed[:-1], packed + b"x"):
        with pytest.raises(Refusal, match="damaged"):
            unpacked_facts(bad)
