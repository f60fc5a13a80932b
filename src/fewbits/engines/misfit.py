"""Why a program that an engine broke off cannot be run at all: looked for where that happened, not before each run."""

import numpy as np

from fewbits.engines.engine import Arrays
from fewbits.errors import ProgramError
from fewbits.program import reference
from fewbits.program.program import Program

_BATCH = 2


def raise_misfit(program: Program, error: Exception, inputs: Arrays | None = None) -> None:
    """After an engine's error: raises ProgramError, naming the node, where the definition does not get to the end on
    the same inputs either (None: zeros), or not to the sizes that the program states. Such a program was put together
    by hand, or forged. Where there is none, the fault is the engine's."""
    told = _misfit(program, _zeros(program) if inputs is None else inputs)
    if told:
        raise ProgramError(told) from error


def _misfit(program: Program, inputs: Arrays) -> str:
    values = reference.check_inputs(program, inputs)
    for node in program.nodes:
        try:
            made = reference.computed(program, node, values)
        except Exception as error:  # whatever NumPy says of it
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            return f"the node {node.name!r} cannot be computed ({reason}): lower the network again"
        for name, value in zip(node.written, made, strict=True):
            stated = program.values[name].taken
            if len(stated) != value.ndim or any(size not in (None, has)
                                                for size, has in zip(stated, value.shape, strict=True)):
                return (f"the node {name!r} gives shape {list(value.shape)}, and the program says "
                        f"{program.values[name]}: lower the network again")
            values[name] = value
    return ""


def _zeros(program: Program) -> Arrays:
    return {name: np.zeros([_BATCH if size is None else size for size in value.shape], value.dtype)
            for name, value in ((name, program.values[name]) for name in program.inputs)}
