"""Dynamic quantization: the range is found when the program runs, for each batch anew."""

from dataclasses import dataclass

from fewbits.ranges.rule import MinMaxRule


@dataclass(frozen=True)
class DynamicRule(MinMaxRule):
    """`dynamic`: the smallest and largest number of each run (docs/numerics.md, eq. 28). Of activations only, where a
    layer with weights takes them."""

    name = "dynamic"
