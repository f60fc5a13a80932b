"""The third: its lowering rule."""

from toy_record import Hypotenuse

from fewbits.graph.graph import Node
from fewbits.lower.context import Context, Rules


def _hypotenuse(context: Context, node: Node) -> None:
    y = context.result(node)
    first, second = context.read(node["self"]), context.read(node["other"])
    context.names[node.name] = context.emit(Hypotenuse(y.name, first, second, y.low, y.high), y.shape, y.encoding)


RULES: Rules = {"hypotenuse": _hypotenuse}
