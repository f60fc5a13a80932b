"""What nodes do for one input, counted: numbers read and written, multiplications and additions. What each costs is in
numerics/energy.py."""

from collections import Counter
from math import prod

from fewbits.numerics.energy import macs
from fewbits.program.node import ProgramNode
from fewbits.program.ops.record import Operations
from fewbits.program.value import Scope


def numbers(program: Scope, *names: str) -> int:
    """Elements of values for one input."""
    return sum(prod(1 if size is None else size for size in program.values[name].shape) for name in names)


def requantized(program: Scope, node: ProgramNode) -> Operations:
    """Bringing each result to codes, where the node does: one multiplication and one addition in float32."""
    if program.is_accumulator(node.name):
        return {}
    written = numbers(program, node.name)
    return {"multiply fp32": written, "add fp32": written}


def together(*parts: Operations) -> Operations:
    """All of them."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def multiply(program: Scope, *operands: str) -> str:
    """The cheapest multiplication of the table that takes codes so wide; weights have 8 bits at most."""
    return "multiply int8" if max(bits(program, name) for name in operands) <= 8 else "multiply int32"


def bits(program: Scope, name: str) -> int:
    """Of one number of a value."""
    encoding = program.values[name].encoding
    return 32 if encoding is None else encoding.format.bits


def integer_products(program: Scope, count: int, *operands: str) -> Operations:
    """So many products of codes, added up."""
    return {multiply(program, *operands): count, "add int32": count}


def float_products(count: int) -> Operations:
    """So many products in float32, added up."""
    return macs(count, "fp32")


def nothing(program: Scope, node: ProgramNode) -> Operations:
    """Of nodes that look up or move codes."""
    return {}
