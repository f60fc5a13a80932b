"""Plans: what is decided of one model. Every tensor that is quantized, and what every node becomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fewbits.graph.graph import Shape
from fewbits.options import options_checked
from fewbits.quant.recipe import RepairName
from fewbits.quant.spec import Spec

Kind = Literal["input", "activation", "weight", "constant", "bias", "accumulator", "dynamic"]


class Treatment(StrEnum):
    """What becomes of a node."""

    INTEGER = "integer"
    """It computes on codes."""
    DYNAMIC = "dynamic"
    """It takes floats, brings them to codes by their range in each run, and sums integers."""
    FLOAT = "float"
    """It computes in float32: it reads or makes a number that no quantizer moves."""
    EXACT = "as it is"
    """It computes token numbers, positions or a mask: integers, truth values, and floats on the way to them."""
    FUSED = "fused"
    """It is part of the node before it: a clamp in the bounds of its codes, a batch norm in its scale and bias."""
    PASSED = "passed on"
    """It moves codes or picks among them."""
    GONE = "gone"
    """It does nothing when the model runs."""
    SIZE = "size"
    """It works on sizes, which a program knows."""


@dataclass(frozen=True)
class Site:
    """A tensor that is quantized.

    name: of the value (`conv1`), the parameter (`conv1.weight`), a node's bias (`conv1.bias`), or the dynamically
    quantized input of a layer (`conv1.input`, kind `dynamic`);
    spec: how its encoding is found; None for biases and accumulators, whose scale is that of the products;
    because: the rule that decided.
    """

    name: str
    kind: Kind
    shape: Shape
    spec: Spec | None
    because: str

    def __str__(self) -> str:
        becomes = self.spec or "int32 at the scale of its products"
        return f"{self.name} ({self.kind}): {becomes}  [{self.because}]"


@dataclass(frozen=True)
class NodePlan:
    """What becomes of one node. grid: name of the value whose encoding its result has, or would have if the recipe
    did not leave it in float; coded: its arguments that are parameters in codes."""

    node: str
    op: str
    treatment: Treatment
    grid: str
    source: str
    coded: tuple[str, ...] = ()


@options_checked
@dataclass(frozen=True)
class Plan:
    """Every tensor and every node of one model, decided. `print(plan)` shows all of it. repairs: what the recipe wants
    done after calibration and that was not done yet (optimize/repairs.py); folded: whether the model was folded when it
    was planned, after which its nodes are others."""

    sites: Mapping[str, Site]
    steps: Mapping[str, NodePlan]
    repairs: tuple[RepairName, ...] = ()
    folded: bool = True

    def grid(self, value: str) -> str:
        """Name of the tensor whose encoding a value has: itself, or what its codes were passed on from."""
        return self.steps[value].grid if value in self.steps else value

    @property
    def needs_data(self) -> bool:
        """Whether some range is that of activations, so that calibration needs batches."""
        return any(site.spec is not None and site.kind in ("input", "activation") for site in self.sites.values())

    def __str__(self) -> str:
        lines = [f"{len(self.sites)} quantized tensors"]
        lines += [f"  {site}" for site in self.sites.values()]
        lines += [f"{len(self.steps)} nodes"]
        lines += [f"  {step.node} = {step.op}: {step.treatment}"
                  + (f", encoding of {step.grid}" if step.grid not in (step.node, "") else "")
                  for step in self.steps.values()]
        lines += [f"then {', '.join(self.repairs)}"] if self.repairs else []
        return "\n".join(lines)
