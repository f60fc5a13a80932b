"""Which rule lowers which operator, by the names of the operator table."""

from collections.abc import Callable

from fewbits.graph.graph import Node
from fewbits.lower import dots, emit, functions, moves, pairs, picks, pools, rows
from fewbits.lower.context import Context

Rule = Callable[[Context, Node], None]

RULES: dict[str, Rule] = {
    "conv": dots.conv, "linear": dots.linear,
    "add": pairs.add, "sub": pairs.sub, "mul": pairs.mul, "matmul": pairs.matmul, "concat": pairs.concat,
    "quotient": pairs.quotient, "larger": pairs.larger,
    "function": functions.table, "div": functions.table, "prelu": functions.prelu, "clamp": functions.clamp,
    "batch_norm": functions.batch_norm,
    "softmax": rows.softmax, "masked_softmax": rows.masked_softmax, "layer_norm": rows.layer_norm,
    "log_softmax": rows.log_softmax, "group_norm": rows.group_norm,
    "embedding": rows.embedding,
    "average_pool": pools.average_pool, "adaptive_average_pool": pools.adaptive_average_pool, "mean": pools.mean,
    "max_pool": pools.max_pool, "adaptive_max_pool": pools.adaptive_max_pool, "largest": pools.largest,
    "reshape": moves.reshape, "transpose": moves.transpose, "slice": moves.cut, "select": moves.select,
    "split": moves.split, "item": moves.item, "pad": moves.pad,
    "expand": picks.expand, "roll": picks.roll, "flip": picks.flip, "channel_shuffle": picks.channel_shuffle,
    "pixel_shuffle": picks.pixel_shuffle, "resize_nearest": picks.resize_nearest, "insert_zeros": picks.insert_zeros,
    "dropout": emit.unchanged, "identity": emit.unchanged, "cast": emit.unchanged, "size": emit.nothing,
}
