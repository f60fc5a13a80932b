"""The verbs in Python, and the object that lowering gives: a program one can call."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from fewbits.artifact.store import load as load_program
from fewbits.artifact.store import save as save_program
from fewbits.export.onnx import Form
from fewbits.export.verified import export_onnx as export_program
from fewbits.graph.capture import Example, capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower as lower_simulation
from fewbits.program import reference
from fewbits.program.inputs import Batch, bind, check
from fewbits.program.profile import Profile
from fewbits.program.program import Program, fill
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.run.torch_executor import TorchExecutor

Engine = Literal["torch", "reference"]


class QuantizedModel:
    """A Program with an engine to run it: called like the float model, it computes with integers only.

    engine: `torch` (fast) or `reference` (the definition, slow); both give the same codes.
    """

    def __init__(self, program: Program, engine: Engine = "torch"):
        self.program = program
        self.engine: Engine = engine
        self._torch = TorchExecutor(program) if engine == "torch" else None

    def __call__(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """Dequantized float32 tensors in the structure of the model's own output.

        Called with the model's arguments: one tensor, several by position, or all by name. Raises DataError
        when they are not what the model takes.
        """
        codes = self._run(kwargs or (args[0] if len(args) == 1 else args))
        real = {name: torch.from_numpy(self.program.encoding(name).decode(array)) for name, array in codes.items()}
        return fill(self.program.structure, real)

    def codes(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """The integers behind the outputs, in the same structure: activation codes, or int32 accumulators."""
        codes = self._run(kwargs or (args[0] if len(args) == 1 else args))
        return fill(self.program.structure, {name: torch.from_numpy(array) for name, array in codes.items()})

    def save(self, path: str | Path) -> None:
        """Writes a `.fewbits` file (docs/file-format.md). Raises FileError; an older file there survives."""
        save_program(self.program, path)

    def _run(self, batch: Batch) -> dict[str, np.ndarray]:
        inputs = bind(self.program.inputs, batch)
        for name, tensor in inputs.items():
            check(tensor, name, self.program.values[name].shape)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}
        return self._torch.run(arrays) if self._torch else reference.run(self.program, arrays)

    def __repr__(self) -> str:
        return f"QuantizedModel({len(self.program.nodes)} nodes, {self.program.profile.name}, {self.engine})"


def lower(simulation: Simulation, profile: str | Profile = "onnxruntime") -> QuantizedModel:
    """The integer program that the simulation stands for, ready to run (lower/lower.py)."""
    return QuantizedModel(lower_simulation(simulation, profile))


def quantize(net: nn.Module, example: Example, batches: Iterable[Batch],
             recipe: str | Path | Recipe = "w8a8", profile: str | Profile = "onnxruntime", *,
             batch_to_inputs: Callable[[Any], Any] | None = None) -> QuantizedModel:
    """All of it at once: capture, fold, plan, calibrate, lower.

    net: left as it is; example, batches: as `capture` and `calibrate` take them.
    """
    model = fold(capture(net, example))
    return lower(calibrate(model, plan(model, recipe), batches, batch_to_inputs=batch_to_inputs), profile)


def load(path: str | Path, engine: Engine = "torch") -> QuantizedModel:
    """The model in a `.fewbits` file, its hashes checked. Raises FileError when it is damaged or foreign."""
    return QuantizedModel(load_program(path), engine)


def export_onnx(model: QuantizedModel, path: str | Path, verify: Iterable[Batch], *, form: Form = "integer",
                batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes ONNX after checking it on `verify` (export/verified.py); returns the codes compared."""
    return export_program(model.program, path, verify, form=form, batch_to_inputs=batch_to_inputs)
