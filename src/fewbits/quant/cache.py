"""Calibrated grids on disk: found once, used again, and refused for any other model or plan.

A JSON file a person can read: version, digests of the model and the plan, and for each site its scales and zero
points. Scales are float32 written so that they come back exactly.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fewbits.errors import EncodingError, FileError
from fewbits.files import write_whole
from fewbits.graph.model import Model
from fewbits.numerics.encoding import Encoding
from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation

_VERSION = 1


def calibrate_cached(model: Model, plan: Plan, batches: Iterable[Batch], path: str | Path, *,
                     batch_to_inputs: Callable[[Any], Any] | None = None) -> Simulation:
    """As `calibrate`, but reads the grids from `path` where that exists, and writes them there where not.

    The batches are not looked at when the file exists. Raises FileError when it is damaged or of another model or plan.
    """
    if Path(path).exists():
        return load_ranges(model, plan, path)
    simulation = calibrate(model, plan, batches, batch_to_inputs=batch_to_inputs)
    save_ranges(simulation, path)
    return simulation


def save_ranges(simulation: Simulation, path: str | Path) -> None:
    """Writes the grids of a calibrated simulation. Raises CalibrationError where a site has none yet."""
    sites = {quantizer.site: {"scale": quantizer.encoding.scale.ravel().tolist(),
                              "zero_point": quantizer.encoding.zero_point.ravel().tolist()}
             for quantizer in simulation.quantizers()}
    content = {"version": _VERSION, "model": digest(simulation.reference), "plan": _plan_digest(simulation.plan),
               "sites": sites}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def load_ranges(model: Model, plan: Plan, path: str | Path) -> Simulation:
    """The simulation those grids make of the model. Raises FileError, saying what does not fit."""
    try:
        content = json.loads(Path(path).read_text())
        version, of_model, of_plan, sites = (content[key] for key in ("version", "model", "plan", "sites"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is no calibration cache ({type(error).__name__}): remove it to calibrate "
                        "anew") from None
    if version != _VERSION:
        raise FileError(f"{path} has version {version!r}, and this fewbits reads {_VERSION}: calibrate anew")
    for what, kept, now in (("model", of_model, digest(model)), ("plan", of_plan, _plan_digest(plan))):
        if kept != now:
            raise FileError(f"{path} was made for another {what}: remove it, or choose another file")
    simulation = Simulation(model, plan)
    for quantizer in simulation.quantizers():
        try:
            shape, row = tuple(quantizer.scale.shape), sites[quantizer.site]
            scale = np.array(row["scale"], np.float32).reshape(shape)
            zero_point = np.array(row["zero_point"], np.int32).reshape(shape)
            quantizer.encoding = Encoding(quantizer.spec.format, scale, zero_point, quantizer.spec.block)
        except (KeyError, ValueError, TypeError, OverflowError, EncodingError):
            raise FileError(f"{path} is damaged at site {quantizer.site!r}: remove it to calibrate anew") from None
    simulation.set_mode("simulate")
    return simulation


def digest(model: Model) -> str:
    """SHA-256 of a model: its nodes, and its parameters and buffers with their names."""
    found = hashlib.sha256()
    for node in model.graph.nodes:
        found.update(f"{node.name} {node.target} {dict(node.arguments)}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _plan_digest(plan: Plan) -> str:
    return hashlib.sha256(str(plan).encode()).hexdigest()
