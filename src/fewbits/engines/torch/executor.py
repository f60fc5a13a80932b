"""A Program in torch, fast enough for a test set, with the reference's codes.

Why it is exact: sums of products are taken in float32 where `accumulator_bound` proves every partial sum
below 2^24, and in float64 (2^53) otherwise, so that each addition, in whatever order a kernel makes it, has
an exact result. The convolution algorithms torch picks for these types on the CPU are direct sums;
NNPACK's transforms are switched off. Everything else is the reference's float32 steps in the same order, and an
addition with fused products is a table over both codes, filled by the reference itself. Float islands alone are not
exact: they are torch's float32.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import torch

from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.nnpack import without_nnpack
from fewbits.engines.torch.steps import TorchKernel
from fewbits.program import reference
from fewbits.program.ops import ProgramNode, reads
from fewbits.program.program import Program


class TorchExecutor:
    """Prepares a program's constants once; `run` takes inputs of any batch size."""

    def __init__(self, program: Program):
        self.program = program
        self._steps = [(node, KERNELS[type(node)](program, node)) for node in program.nodes]

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Codes of the program's outputs and of the values named in `keep`, as `reference.run` gives them."""
        wanted = dict.fromkeys([*self.program.outputs, *keep])
        found = {name: x for name, x in reference.check_inputs(self.program, inputs).items() if name in wanted}
        found |= {name: codes for name, codes in self.walk(inputs) if name in wanted}
        return {name: found[name] for name in wanted}

    def walk(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Name and value of what each node writes as `run` gives them, in running order; none is kept longer than it is
        read."""
        return _walk(self.program, self._steps, inputs)


def walk_once(program: Program, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """As `TorchExecutor.walk`, the constants of each node prepared only while it runs: less memory, for one run."""
    return _walk(program, ((node, KERNELS[type(node)](program, node)) for node in program.nodes), inputs)


def _walk(program: Program, steps: Iterable[tuple[ProgramNode, TorchKernel]],
          inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    checked = reference.check_inputs(program, inputs)
    values = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in checked.items()}
    last_use = {name: i for i, node in enumerate(program.nodes) for name in reads(node)}
    i = -1
    for node, step in steps:  # no enumerate: that keeps the last step, and its weights, until it has the next
        i += 1
        with torch.no_grad(), without_nnpack():  # what the caller does in between has its gradients, and NNPACK
            made = step(*(values[name] for name in reads(node)))
        for name, value in zip(node.written, made if isinstance(made, tuple) else (made,), strict=True):
            yield name, value.numpy()
            if name in last_use:
                values[name] = value
            del value
        del made, step
        for name in reads(node):
            if last_use[name] == i:
                values.pop(name, None)
