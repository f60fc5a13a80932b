"""A Program as ONNX: what every operator is in it, a family a file. Nothing here runs or checks what it writes."""

from fewbits.writers.onnx import dots, dynamic, exact, floats, functions, grids, moves, pairs, pools, recurrence, rows
from fewbits.writers.onnx.steps import FormTable

_IN_BODIES: FormTable = {
    **grids.FORMS, **dots.FORMS, **pairs.FORMS, **pools.FORMS, **rows.FORMS, **functions.FORMS, **moves.FORMS,
    **floats.FORMS, **dynamic.FORMS, **exact.FORMS,
}

FORMS: FormTable = {**_IN_BODIES, **recurrence.forms(_IN_BODIES)}
