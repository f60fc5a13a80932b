"""A Program in torch: the kernels of every operator, a family a file."""

from fewbits.engines.torch import dots, dynamic, exact, floats, functions, grids, moves, pairs, pools, recurrence, rows
from fewbits.engines.torch.steps import Kernels

_IN_BODIES: Kernels = {
    **grids.KERNELS, **dots.KERNELS, **pairs.KERNELS, **pools.KERNELS, **rows.KERNELS, **functions.KERNELS,
    **moves.KERNELS, **floats.KERNELS, **dynamic.KERNELS, **exact.KERNELS,
}

KERNELS: Kernels = {**_IN_BODIES, **recurrence.kernels(_IN_BODIES)}
