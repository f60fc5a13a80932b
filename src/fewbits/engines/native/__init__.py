"""Programs as flat lists of native calls: a form for each operator, a family a file."""

from fewbits.engines.native import dots, elementwise, moves, rows
from fewbits.engines.native.context import Forms

FORMS: Forms = {**elementwise.FORMS, **dots.FORMS, **rows.FORMS, **moves.FORMS}
"""Of the operators that have one; a form may still decline a node, and what has none runs in torch."""
