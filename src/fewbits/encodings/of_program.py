"""The encodings of a program as a table."""

from fewbits.program import ops as op
from fewbits.program.program import Program
from fewbits.quant.encoding_table import EncodingTable, TensorEncoding


def encodings_of(program: Program) -> EncodingTable:
    """Every value that has codes (sums that leave as they are have none), each layer's weight before its result."""
    rows, nodes = [], {node.name: node for node in program.everything}
    for name, value in program.values.items():
        node = nodes.get(name)
        if isinstance(node, op.Conv | op.Linear):
            rows.append(TensorEncoding.of(f"{name}.weight", "weight", node.weight.encoding))
        if value.encoding is not None and not program.is_accumulator(name):
            kind = "constant" if isinstance(node, op.Constant) else "activation"
            rows.append(TensorEncoding.of(name, kind, value.encoding))
    return EncodingTable(rows)
