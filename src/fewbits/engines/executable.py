"""A Program as something to call: torch tensors in, the model's own structure of torch tensors out."""

from typing import Any, Literal

import numpy as np
import torch

from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.options import options_checked
from fewbits.program import reference
from fewbits.program.inputs import Batch, bind, check
from fewbits.program.program import Program, fill

Engine = Literal["torch", "reference", "native"]


class Executable:
    """A Program with an engine to run it: called like the float model, it computes with integers only.

    engine: `torch`, `reference` (the definition, slow), or `native`, through our own kernels; all give the same codes.
    """

    @options_checked
    def __init__(self, program: Program, engine: Engine = "torch"):
        self.program = program
        self.engine: Engine = engine
        self._executor = self._prepared()

    def __call__(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """Dequantized float32 tensors in the structure of the model's own output.

        Called with the model's arguments: one tensor, several by position, or all by name. Raises DataError
        when they are not what the model takes.
        """
        batch = kwargs or (args[0] if len(args) == 1 else args)
        if isinstance(self._executor, NativeExecutor):
            real = self._executor.real(self._inputs(batch))
        else:
            real = {name: self.program.real(name, array) for name, array in self._run(batch).items()}
        return fill(self.program.structure, {name: torch.from_numpy(array) for name, array in real.items()})

    def codes(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """The integers behind the outputs, in the same structure: activation codes, or int32 accumulators; an output
        that the recipe left in float is that float32."""
        codes = self._run(kwargs or (args[0] if len(args) == 1 else args))
        return fill(self.program.structure, {name: torch.from_numpy(array) for name, array in codes.items()})

    def _run(self, batch: Batch) -> dict[str, np.ndarray]:
        arrays = self._inputs(batch)
        return self._executor.run(arrays) if self._executor else reference.run(self.program, arrays)

    def _inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        inputs = bind(self.program.inputs, batch)
        for name, tensor in inputs.items():
            check(tensor, name, self.program.values[name].shape, self.program.values[name].dtype)
        return {name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copies: without the prepared steps, which are made again."""
        return {name: value for name, value in vars(self).items() if name != "_executor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._executor = self._prepared()

    def _prepared(self) -> TorchExecutor | NativeExecutor | None:
        match self.engine:
            case "torch":
                return TorchExecutor(self.program)
            case "native":
                return NativeExecutor(self.program)
            case _:
                return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.program.nodes)} nodes, {self.program.profile.name}, {self.engine})"
