"""A Program as something to call: torch tensors in, the model's own structure of torch tensors out."""

from typing import Any

import torch

from fewbits.errors import ProgramError
from fewbits.program.program import Program, fill
from fewbits.report.batches import arrays
from fewbits.run.torch_executor import TorchExecutor


class Executed:
    """Calls a Program through the torch executor and dequantizes what it returns."""

    def __init__(self, program: Program):
        self.program = program
        self._executor = TorchExecutor(program)

    def __call__(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        """float32 tensors by position or name. Raises ProgramError when they are not the program's."""
        names = self.program.inputs
        if len(args) > len(names):
            raise ProgramError(f"the program takes {', '.join(names)}, not {len(args)} inputs")
        codes = self._executor.run(arrays(dict(zip(names, args, strict=False)) | kwargs))
        real = {name: torch.from_numpy(self.program.encoding(name).decode(array))
                for name, array in codes.items()}
        return fill(self.program.structure, real)
