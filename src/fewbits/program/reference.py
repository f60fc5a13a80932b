"""The definition, run: every node by the reference kernel of its record. Slow, plain, and always right.

Sums of products are int64, so nothing wraps; what is not an integer is float32, rounded to nearest even after every
operation, in the order of the equations in docs/numerics.md. Calls of float islands are the exception: float64, rounded
once.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from fewbits.errors import ProgramError
from fewbits.program.node import ProgramNode
from fewbits.program.ops import reads, record_of
from fewbits.program.program import Program


def run(program: Program, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Codes of the program's outputs and of the values named in `keep`; of float values, the float32 themselves.

    inputs: float32 (for embeddings int64) arrays by input name. Raises ProgramError when one is missing or of
    another shape.
    """
    wanted = dict.fromkeys([*program.outputs, *keep])
    found = {name: x for name, x in check_inputs(program, inputs).items() if name in wanted}
    found |= {name: codes for name, codes in walk(program, inputs) if name in wanted}
    return {name: found[name] for name in wanted}


def walk(program: Program, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of what each node writes as `run` gives them, in running order; none is kept longer than a node
    reads it.

    Raises ProgramError as `run` does.
    """
    values = check_inputs(program, inputs)
    last_use = {name: i for i, node in enumerate(program.nodes) for name in reads(node)}
    for i, node in enumerate(program.nodes):
        made = computed(program, node, values)
        for name, value in zip(node.written, made, strict=True):
            yield name, value
            if name in last_use:
                values[name] = value
            del value
        del made
        for name in reads(node):
            if last_use[name] == i:
                values.pop(name, None)


def computed(program: Program, node: ProgramNode, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """What one node gives for each value that it writes. values: at least those that it reads, by name."""
    made = record_of(node).reference(program, node, *(values[name] for name in reads(node)))
    return made if isinstance(made, tuple) else (made,)


def check_inputs(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs as arrays, in the program's order; ProgramError names what does not fit."""
    checked = {}
    for name in program.inputs:
        if name not in inputs:
            raise ProgramError(f"input {name!r} is missing: the program takes {', '.join(program.inputs)}")
        x, shape = np.asarray(inputs[name]), program.values[name].taken
        if x.dtype != program.values[name].dtype:
            raise ProgramError(f"input {name!r} is {x.dtype}: give {program.values[name].dtype}")
        if len(x.shape) != len(shape) or any(s not in (None, t) for s, t in zip(shape, x.shape, strict=True)):
            raise ProgramError(f"input {name!r} has shape {x.shape}, but the program takes "
                               f"{tuple('N' if s is None else s for s in shape)}")
        checked[name] = x
    unknown = set(inputs) - set(checked)
    if unknown:
        raise ProgramError(f"the program has no input {sorted(unknown)[0]!r}: it takes {', '.join(checked)}")
    return checked
