"""Weights from a file into a network."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fewbits.data.llama2c import read_checkpoint
from fewbits.data.readers import read_npz
from fewbits.errors import DataError
from fewbits.limits import REPEATED_ELEMENTS, UNPACKED_BYTES

_SHOWN = 3


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a .safetensors, .npz or llama2.c .bin file, or of one written by torch.save; on the CPU.

    Caffe's layer names in an .npz, `fire2/squeeze1x1`, become `fire2.squeeze1x1`. A checkpoint's `state_dict` is
    unwrapped, and the `module.` that DataParallel puts before every name is taken off. No pickled code is run. Raises
    DataError when the file is missing, damaged or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no weights at {path}; give a .safetensors, .pt, .pth, .npz or .bin file.")
    if path.suffix == ".npz":
        return _from_npz(path)
    if path.suffix == ".bin":
        return read_checkpoint(path)
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            _check_archive(path)
            found = torch.load(path, weights_only=True, map_location="cpu")
    except DataError:
        raise
    except Exception as error:  # a damaged file breaks the parsers in more ways than they name
        raise DataError(
            f"{path} is damaged or holds more than weights; "
            "save a state_dict again, as .safetensors or by torch.save(model.state_dict(), path)."
        ) from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} holds no named tensors; save model.state_dict() into it.")
    odd = next((key for key, value in state.items() if value.is_meta or value.layout != torch.strided
                or value.is_quantized), None)
    if odd is not None:
        raise DataError(f"{odd!r} of {path} is no plain tensor (sparse, quantized, or without data); save it dense.")
    for key, value in state.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes() and (
                value.numel() > REPEATED_ELEMENTS):
            raise DataError(f"{key!r} of {path} repeats few numbers over shape {list(value.shape)} (a stride of 0); "
                            "save a copy of it, .contiguous().")
    prefix = "module." if all(str(key).startswith("module.") for key in state) else ""
    return {str(key).removeprefix(prefix): value for key, value in state.items()}


def _check_archive(path: Path) -> None:
    """Raises DataError for a file of torch.save whose members unpack to more than they may: torch itself packs none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = sum(info.file_size for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED)
        if packed > UNPACKED_BYTES:
            raise DataError(f"{path} unpacks to {packed} bytes, and {UNPACKED_BYTES} is the most for a compressed "
                            "file; save it with torch.save.")


def _from_npz(path: Path) -> dict[str, Tensor]:
    arrays = read_npz(path)
    odd = [key for key, array in arrays.items() if array.dtype.kind not in "fiub"]
    if odd or not arrays:
        raise DataError(f"{path} holds no named tensors{f' ({odd[0]} is none)' if odd else ''}; save plain numbers.")
    return {key.replace("/", "."): torch.from_numpy(array) for key, array in arrays.items()}


def apply_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `model`, all of it or nothing.

    source: where the weights come from, for the message. Batch norm's `num_batches_tracked`, which older
    files lack and inference never reads, may be missing. Raises DataError when names or shapes differ.
    """
    check_weights(model, {key: tuple(tensor.shape) for key, tensor in state.items()}, source)
    model.load_state_dict(state, strict=False)


def check_weights(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raises DataError as `apply_weights` does; shapes: of the tensors, by name."""
    own = model.state_dict()
    missing = [key for key in own if key not in shapes and key.rpartition(".")[2] != "num_batches_tracked"]
    unexpected = [key for key in shapes if key not in own]
    misshapen = [
        f"{key} {list(shapes[key])} for {list(own[key].shape)}"
        for key in own
        if key in shapes and shapes[key] != own[key].shape
    ]
    differences = [
        f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''})"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
        if keys
    ]
    if differences and set(shapes) <= {"x", "y"}:
        raise DataError(f"{source} holds data and no weights, {' and '.join(shapes)}; give it as --data npz:{source}, "
                        "and as weights what was saved from the network.")
    if differences:
        raise DataError(
            f"The weights of {source} are of another architecture than this {type(model).__name__}: "
            f"{', '.join(differences)}; give weights that were saved from this network."
        )
