"""Which rule lowers which operator, by the names of the operator table: the rules of every family."""

from fewbits.lower import dots, emit, exact, functions, moves, pairs, picks, pools, recurrence, rows
from fewbits.lower.context import Rules

RULES: Rules = {
    **dots.RULES, **pairs.RULES, **functions.RULES, **rows.RULES, **pools.RULES, **moves.RULES, **picks.RULES,
    **emit.RULES, **exact.RULES, **recurrence.RULES,
}
