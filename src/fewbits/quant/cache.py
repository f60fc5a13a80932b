"""Calibration cache: encodings on disk, found once, used again, and refused for any other model or plan.

A JSON file a person can read: version, digests of the model, the plan and the data, for each tensor its scales and zero
points, and a digest of all that. Scales are float32 written so that they come back exactly.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fewbits.errors import EncodingError, FileError
from fewbits.files import read_whole, write_whole
from fewbits.graph.model import Model
from fewbits.limits import TEXT_BYTES
from fewbits.numerics.encoding import Encoding
from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import BatchToInputs, calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation
from fewbits.storage.container import from_json, to_json
from fewbits.storage.digests import digest_of_state
from fewbits.storage.refusal import Refusal

_VERSION = 2


def calibrate_cached(model: Model, plan: Plan, batches: Iterable[Batch], path: str | Path, *, data: str = "",
                     batch_to_inputs: BatchToInputs = None) -> Simulation:
    """As `calibrate`, but reads the encodings from `path` if it exists, else calibrates and writes them there.

    The batches are not looked at when the file exists. data: what they are, such as a digest; a file of other data is
    then refused. Raises FileError when it is damaged, changed by hand, or of another model, plan or data.
    """
    if os.path.lexists(path):
        return load_ranges(model, plan, path, data=data)
    simulation = calibrate(model, plan, batches, batch_to_inputs=batch_to_inputs)
    save_ranges(simulation, path, data=data)
    return simulation


def save_ranges(simulation: Simulation, path: str | Path, *, data: str = "") -> None:
    """Writes the encodings of a calibrated simulation. data: what gave them. Raises CalibrationError where one is
    missing."""
    sites = {quantizer.site: {"scale": quantizer.encoding.scale.ravel().tolist(),
                              "zero_point": quantizer.encoding.zero_point.ravel().tolist()}
             for quantizer in simulation.quantizers()}
    content = {"version": _VERSION, "model": digest(simulation.reference), "plan": _plan_digest(simulation.plan),
               "data": data, "sites": sites}
    write_whole(path, (json.dumps({**content, "digest": _digest(content)}, indent=1) + "\n").encode())


def load_ranges(model: Model, plan: Plan, path: str | Path, *, data: str = "") -> Simulation:
    """A simulation of the model with the encodings of the file. Raises FileError, saying what does not fit."""
    content = _content(path)
    for what, kept, now in (("model", content["model"], digest(model)), ("plan", content["plan"], _plan_digest(plan)),
                            ("data set", content["data"] or data, data or content["data"])):
        if kept != now:
            raise FileError(f"{path} was made for another {what}: remove it, or choose another file")
    simulation = Simulation(model, plan)
    for quantizer in simulation.quantizers():
        try:
            shape, row = tuple(quantizer.scale.shape), content["sites"][quantizer.site]
            scale, zero_point = (_numbers(row[part], kind).reshape(shape)
                                 for part, kind in (("scale", np.float32), ("zero_point", np.int32)))
            quantizer.encoding = Encoding(quantizer.spec.format, scale, zero_point, quantizer.spec.block)
        except (KeyError, ValueError, TypeError, OverflowError, EncodingError):
            raise FileError(f"{path} is damaged at tensor {quantizer.site!r}: remove it to calibrate anew") from None
    simulation.set_mode("simulate")
    return simulation


def _content(path: str | Path) -> dict[str, Any]:
    """What a cache says, its digest found to be right."""
    text = read_whole(path, TEXT_BYTES, "a calibration cache")
    try:
        content = from_json(text, "text")
    except Refusal:
        content = None
    if not isinstance(content, dict) or "version" not in content:
        raise FileError(f"{path} is no calibration cache: remove it to calibrate anew")
    if content["version"] != _VERSION:
        raise FileError(f"{path} has version {str(content['version'])[:20]!r}, and this fewbits reads {_VERSION}: "
                        "remove it to calibrate anew")
    claimed = content.pop("digest", None)
    if claimed != _digest(content):
        raise FileError(f"{path} is damaged or was changed by hand: remove it to calibrate anew")
    if content.keys() != {"version", "model", "plan", "data", "sites"} or not isinstance(content["sites"], dict):
        raise FileError(f"{path} is no calibration cache: remove it to calibrate anew")
    return content


def _numbers(given: Any, kind: type[np.generic]) -> np.ndarray:
    """A list of numbers, exactly. Raises ValueError for what is none, or not of this kind."""
    wanted = float if kind is np.float32 else int
    if not isinstance(given, list) or not all(type(number) is wanted for number in given):
        raise ValueError("no list of numbers")
    with np.errstate(over="raise"):
        try:
            return np.array(given, kind)
        except FloatingPointError as error:
            raise ValueError("beyond float32") from error


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a cache says, however it is laid out."""
    return hashlib.sha256(to_json(content)).hexdigest()


def digest(model: Model) -> str:
    """SHA-256 of a model: its nodes, and its parameters and buffers with their names."""
    found = hashlib.sha256()
    for node in model.graph.everything:
        arguments = {name: value for name, value in node.arguments.items() if name != "body"}
        found.update(f"{node.name} {node.target} {arguments}\n".encode())
    found.update(digest_of_state(model.state_dict()).encode())
    return found.hexdigest()


def _plan_digest(plan: Plan) -> str:
    return hashlib.sha256(str(plan).encode()).hexdigest()
