"""Files that long work goes on from: what was reached, and which job it belongs to, under a digest over every bit.

A checkpoint is a safetensors file as `storage/container.py` writes it, with one JSON document beside its tensors. It
holds no pickle and no code, and is taken up by the very job that wrote it only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewbits.errors import FileError
from fewbits.files import read_whole, write_whole
from fewbits.limits import CHECKPOINT_BYTES, DOCUMENT_DEPTH
from fewbits.storage import container
from fewbits.storage.refusal import Refusal, quoted
from fewbits.storage.writer import this_writer

State = Any
"""Numbers, texts, None, tensors, and lists and dicts (keys: texts or integers) of them."""

_DOCUMENT = "fewbits.checkpoint"
_VERSION = 1
_SHOWN = 60  # letters of a fact; digests have 64
_MEND = "remove it to begin anew, or choose another file"
# Kept as the integers of the same bits.
_AS_INTEGERS = {torch.bfloat16: torch.int16}


@dataclass(frozen=True)
class Job:
    """What a checkpoint belongs to. kind: of work, `training`; facts: all that decides its result, by what it is
    (`start weights`, `recipe`), each as a text or a digest."""

    kind: str
    facts: Mapping[str, str]


def write_checkpoint(path: str | Path, job: Job, state: State) -> None:
    """Writes the file whole. Raises FileError when that fails, or for a tensor that no file can hold."""
    arrays: dict[str, np.ndarray] = {}
    try:
        document = {"version": _VERSION, "kind": job.kind, "facts": dict(job.facts), "state": _encode(state, arrays)}
        text = np.frombuffer(container.to_json(document), np.uint8)
        pieces = container.pieces({**arrays, _DOCUMENT: text}, this_writer())
    except (TypeError, ValueError) as error:
        raise FileError(f"{path} was not written: what is to be kept is no number, text or plain tensor ({error})") \
            from None
    write_whole(path, pieces)


def read_checkpoint(path: str | Path, job: Job) -> State:
    """What was kept. Raises FileError for a file that is damaged, foreign, of an older fewbits, or of another job."""
    try:
        held = container.parse(read_whole(path, CHECKPOINT_BYTES, "a checkpoint"))
        document = _document(held)
        _check_job(document, job)
        tensors = dict(held.tensors)
        del tensors[_DOCUMENT]
        state = _decode(document["state"], tensors, 0)
        if tensors:
            raise Refusal("holds a tensor that belongs to nothing")
    except Refusal as refusal:
        raise FileError(f"{path} {refusal.reason}: {_MEND}") from None
    return state


def _document(held: container.Container) -> dict[str, Any]:
    text = held.tensors.get(_DOCUMENT)
    if text is None or text.dtype != np.uint8 or text.nbytes > container.HEADER_LIMIT:
        raise Refusal("is no checkpoint")
    document = container.from_json(text.tobytes(), "checkpoint")
    if not isinstance(document, dict) or document.keys() != {"version", "kind", "facts", "state"} or not isinstance(
            document["facts"], dict):
        raise Refusal("is no checkpoint")
    if document["version"] != _VERSION:
        raise Refusal(f"is a checkpoint of another fewbits, version {quoted(document['version'])}")
    return document


def _check_job(document: Mapping[str, Any], job: Job) -> None:
    if document["kind"] != job.kind:
        raise Refusal(f"is of another kind of work, {quoted(document['kind'])}, and this is {job.kind!r}")
    kept = document["facts"]
    for what in (*job.facts, *kept):
        there, here = kept.get(what), job.facts.get(what)
        if there != here:
            shown = all(isinstance(fact, str) and len(fact) <= _SHOWN for fact in (there, here))
            raise Refusal(f"is of another job, with another {what}" + (f" ({there}, here {here})" if shown else ""))


def _encode(value: State, arrays: dict[str, np.ndarray]) -> Any:
    """JSON of a state; its tensors go into `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, torch.Tensor):
        name = f"tensor{len(arrays)}"
        plain = value.detach().cpu().contiguous()
        dtype = str(plain.dtype).removeprefix("torch.")
        arrays[name] = plain.view(_AS_INTEGERS.get(plain.dtype, plain.dtype)).numpy()
        if not container.stores(arrays[name].dtype) or plain.ndim > container.RANK_LIMIT:
            raise TypeError(f"a tensor of {dtype} with {plain.ndim} axes")
        return {"tensor": [name, dtype]}
    if isinstance(value, list | tuple):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (int, str):
                raise TypeError(f"a key {key!r}")
        return {"dict": [[key, _encode(item, arrays)] for key, item in value.items()]}
    raise TypeError(f"a {type(value).__name__}")


def _decode(value: Any, arrays: dict[str, np.ndarray], depth: int) -> State:
    """Inverse of `_encode`; takes each array once."""
    if depth > DOCUMENT_DEPTH:
        raise Refusal("nests its state too deeply")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_decode(item, arrays, depth + 1) for item in value]
    match value:
        case {"tensor": [str(name), str(dtype)], **rest} if not rest and name in arrays:
            tensor = torch.from_numpy(np.array(arrays.pop(name)))  # a copy: the file's bytes cannot be written to
            kind = getattr(torch, dtype, None)
            if kind in _AS_INTEGERS and _AS_INTEGERS[kind] is tensor.dtype:
                return tensor.view(kind)
            if kind is tensor.dtype:
                return tensor
        case {"dict": list(pairs), **rest} if not rest:
            table = {}
            for pair in pairs:
                if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) in (int, str)):
                    break
                table[pair[0]] = _decode(pair[1], arrays, depth + 1)
            else:
                if len(table) == len(pairs):
                    return table
    raise Refusal("has a damaged state")
