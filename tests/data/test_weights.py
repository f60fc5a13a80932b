"""Weights: both file formats, checkpoints as found in the wild, and the sentences of the refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewbits.data.weights import apply_weights, load_weights
from fewbits.errors import DataError
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.lenet import lenet5
from fewbits.tasks.training import initialised


def state(seed: int = 1) -> dict[str, Tensor]:
    return dict(initialised(lenet5, seed).state_dict())


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_reads_safetensors_and_torch_files(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a.safetensors")
    torch.save(state(), tmp_path / "a.pt")
    torch.save(state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "a.pt", "old.pth"):
        assert_same(load_weights(tmp_path / name), state())


def test_reads_npz_files_with_caffes_layer_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{key.replace(".", "/", 1): value.numpy() for key, value in state().items()})
    assert_same(load_weights(tmp_path / "a.npz"), state())
    np.savez(tmp_path / "words.npz", names=np.array(["a", "b"]))
    with pytest.raises(DataError, match=r"words.npz holds no named tensors \(names is none\); save plain numbers"):
        load_weights(tmp_path / "words.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"broken.npz is damaged"):
        load_weights(tmp_path / "broken.npz")


def test_unwraps_a_checkpoint_of_data_parallel(tmp_path: Path) -> None:
    wrapped = {f"module.{key}": value for key, value in state().items()}
    torch.save({"state_dict": wrapped, "best": 91.7}, tmp_path / "a.th")
    assert_same(load_weights(str(tmp_path / "a.th")), state())


def test_a_prefix_that_is_not_common_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pt")
    assert set(load_weights(tmp_path / "a.pt")) == {"module.a", "b"}


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.empty(3, device="meta"),
                                 torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)])
def test_tensors_that_are_not_plain_are_refused_by_name(tmp_path: Path, odd: Tensor) -> None:
    torch.save({"a": torch.ones(2), "b": odd}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"'b' of .*a.pt is no plain tensor"):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.7, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, keep: float) -> None:
    file = tmp_path / name
    if name == "a.pt":
        torch.save(state(), file)
    else:
        save_file(state(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match=rf"{name} is damaged or holds more than weights"):
        load_weights(file)


@pytest.mark.parametrize("content", [b"hello, world", b"\x80\x02", b"PK\x03\x04 not a zip", b"\x00" * 64])
@pytest.mark.parametrize("name", ["foreign.pt", "foreign.safetensors"])
def test_a_foreign_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is damaged or holds more than weights"):
        load_weights(tmp_path / name)


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(lenet5(), tmp_path / "whole.pt")
    with pytest.raises(DataError, match=r"whole.pt is damaged or holds more than weights; save a state_dict"):
        load_weights(tmp_path / "whole.pt")


@pytest.mark.parametrize("found", [{}, [torch.zeros(1)], torch.zeros(2), {"a": 1.0}, {"state_dict": None}])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, found: object) -> None:
    torch.save(found, tmp_path / "odd.pt")
    with pytest.raises(DataError, match=r"odd.pt holds no named tensors; save model.state_dict\(\)"):
        load_weights(tmp_path / "odd.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There are no weights at .*gone.pt; give a .safetensors"):
        load_weights(tmp_path / "gone.pt")
    with pytest.raises(DataError, match=r"There are no weights at"):
        load_weights(tmp_path)


def test_applies_all_of_it(tmp_path: Path) -> None:
    model = lenet5()
    apply_weights(model, state(), "here")
    assert_same(dict(model.state_dict()), state())


def test_batch_norm_counters_may_be_missing() -> None:
    model = digits_net()
    given = {key: value + 1 for key, value in model.state_dict().items() if "num_batches" not in key}
    apply_weights(model, given, "here")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in given.items())


def test_another_architecture_is_one_sentence_and_changes_nothing() -> None:
    model = initialised(lenet5, seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong = state()
    del wrong["9.bias"], wrong["11.bias"]
    wrong["0.weight"] = torch.zeros(6, 3, 5, 5)
    wrong |= {f"extra{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(DataError) as caught:
        apply_weights(model, wrong, "net.pt")
    assert str(caught.value) == (
        "The weights of net.pt are of another architecture than this Sequential: "
        "2 missing (9.bias, 11.bias), 5 unexpected (extra0, extra1, extra2, ...), "
        "1 of another shape (0.weight [6, 3, 5, 5] for [6, 1, 5, 5]); "
        "give weights that were saved from this network."
    )
    assert_same(dict(model.state_dict()), before)


def test_a_missing_running_mean_is_not_forgiven() -> None:
    model = nn.BatchNorm2d(3)
    given = {key: value for key, value in model.state_dict().items() if key != "running_mean"}
    with pytest.raises(DataError, match=r"1 missing \(running_mean\)"):
        apply_weights(model, given, "here")
