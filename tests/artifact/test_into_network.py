"""Compressed weights go straight into a network and its program, one tensor at a time."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fewbits as fb
from fewbits.artifact.into_network import read_weights
from fewbits.artifact.weights import WeightsFile, save_weights
from fewbits.compress import prune
from fewbits.compress.share import share
from fewbits.errors import DataError, FileError
from fewbits.program import ops as nodes
from fewbits.testing import differences


def network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 40), nn.ReLU(),
                             nn.Linear(40, 5)).eval()


def compressed(net: nn.Module, path: Path, k: int) -> Path:
    """Half of the weights, k values a layer."""
    state, shared = net.state_dict(), {}
    for name in ("0.weight", "3.weight", "5.weight"):
        mask = prune.by_density(state[name], 0.5).numpy()
        shared[name] = share(state[name].numpy(), k, mask=mask)
    save_weights(state, path, shared)
    return path


@pytest.mark.parametrize("k", [3, 16])
def test_the_program_has_the_centroids_in_whole_steps(k: int, tmp_path: Path) -> None:
    path = compressed(network(0), tmp_path / "a.fewbits", k)
    net, file = network(1), WeightsFile(path)
    read_weights(net, path)
    x = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    program = fb.quantize(net, x[:2], [x], recipe="w8a8-per-tensor").program
    weights = [node.weight for node in program.nodes if isinstance(node, nodes.Conv | nodes.Linear)]
    for name, weight in zip(("0.weight", "3.weight", "5.weight"), weights, strict=True):
        shared = file.shared(name)
        assert shared is not None
        step = np.abs(shared.centroids).max() / np.float32(127)
        steps = np.concatenate(([0], np.rint(shared.centroids[0] / step))).astype(np.int8)
        np.testing.assert_array_equal(weight.codes, steps[shared.table_index()])
        assert weight.encoding.scale == step
    assert not differences(program, {program.inputs[0]: x.numpy()})


def test_one_tensor_at_a_time(tmp_path: Path) -> None:
    net = nn.Sequential(*(nn.Linear(512, 512) for _ in range(24)))
    save_weights(net.state_dict(), tmp_path / "a.fewbits",
                 {name: share(tensor.numpy(), 4) for name, tensor in net.state_dict().items() if tensor.ndim == 2})
    tracemalloc.start()
    read_weights(net, tmp_path / "a.fewbits")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20  # a layer is 1 MiB in float32, and takes some 7 while it is decoded; all of them are 24
    assert len(net[7].weight.unique()) == 4


def test_other_files_are_read_too(tmp_path: Path) -> None:
    net = network(1)
    save_file(network(0).state_dict(), tmp_path / "a.safetensors")
    read_weights(net, tmp_path / "a.safetensors")
    assert torch.equal(net[0].weight, network(0)[0].weight)


def test_another_network_or_damage_is_refused(tmp_path: Path) -> None:
    path = compressed(network(0), tmp_path / "a.fewbits", 4)
    other = nn.Sequential(nn.Linear(3, 4))
    before = other[0].weight.clone()
    with pytest.raises(DataError, match="another architecture"):
        read_weights(other, path)
    assert torch.equal(other[0].weight, before)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FileError, match="damaged"):
        read_weights(network(1), path)
    with pytest.raises(FileError, match="does not exist"):
        read_weights(network(1), tmp_path / "b.fewbits")
