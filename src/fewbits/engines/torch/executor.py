"""A Program in torch, fast enough for a test set, with the reference's codes.

Why it is exact: sums of products are taken in float32 where `accumulator_bound` proves every partial sum
below 2^24, and in float64 (2^53) otherwise, so that each addition, in whatever order a kernel makes it, has
an exact result. The convolution algorithms torch picks for these types on the CPU are direct sums;
NNPACK's transforms are switched off. Everything else is the reference's float32 steps in the same order, and an
addition with fused products is a table over both codes, filled by the reference itself. Float islands alone are not
exact: they are torch's float32.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch

from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.nnpack import without_nnpack
from fewbits.program import reference
from fewbits.program.ops import reads
from fewbits.program.program import Program


class TorchExecutor:
    """Prepares a program's constants once; `run` takes inputs of any batch size."""

    def __init__(self, program: Program):
        self.program = program
        self._steps = [(node, KERNELS[type(node)](program, node)) for node in program.nodes]
        self._last_use = {name: i for i, node in enumerate(program.nodes) for name in reads(node)}

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Codes of the program's outputs and of the values named in `keep`, as `reference.run` gives them."""
        checked = reference.check_inputs(self.program, inputs)
        values = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in checked.items()}
        wanted = dict.fromkeys([*self.program.outputs, *keep])
        with torch.no_grad(), without_nnpack():
            for i, (node, step) in enumerate(self._steps):
                values[node.name] = step(*(values[name] for name in reads(node)))
                for name in reads(node):
                    if self._last_use[name] == i and name not in wanted:
                        values.pop(name, None)
        return {name: values[name].numpy() for name in wanted}
