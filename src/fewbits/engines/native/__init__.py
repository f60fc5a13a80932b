"""Programs as flat lists of native calls: a form for each operator, a family a file."""

from fewbits.engines.native import dots, elementwise, moves, recurrence, rows
from fewbits.engines.native.context import Forms

_OF_A_BODY: Forms = {**elementwise.FORMS, **dots.FORMS, **rows.FORMS, **moves.FORMS}
FORMS: Forms = {**_OF_A_BODY, **recurrence.forms(_OF_A_BODY)}
"""Of the operators that have one; a form may still decline a node, and what has none runs in torch."""
