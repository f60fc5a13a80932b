"""The weights of a file into a network, also of a compressed one."""

from pathlib import Path

import torch
from torch import nn

from fewbits.artifact.weights import WeightsFile
from fewbits.data.weights import apply_weights, check_weights, load_weights


def read_weights(net: nn.Module, path: str | Path) -> None:
    """Copies a file's tensors into `net`: safetensors, npz, a state dict, or what `fewbits compress` wrote.

    A compressed file is decoded one tensor at a time, so that no more than one is ever held beside the network. Names
    and shapes are compared before anything is changed; a damaged tensor is refused when it is its turn. Raises
    DataError as `apply_weights` and `load_weights` do, FileError as WeightsFile does.
    """
    if Path(path).suffix != ".fewbits":
        apply_weights(net, load_weights(path), str(path))
        return
    file = WeightsFile(path)
    check_weights(net, file.shapes(), str(path))
    state = net.state_dict()  # shares its memory with the network
    with torch.no_grad():
        for name in file.names:
            state[name].copy_(file.tensor(name))
