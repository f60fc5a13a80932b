"""What a lowering rule may ask for, and where it puts the nodes it makes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node, Param, Ref, Shape
from fewbits.graph.operators import bounds, operator_of
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.program import nodes as op
from fewbits.program import requantize as constants
from fewbits.program.profile import Profile
from fewbits.program.program import Value
from fewbits.quant.simulation import Simulation


@dataclass
class Context:
    """The program under construction.

    names: what the values of the graph are called in the program (those that one node makes together with
    its clamp, or passes on unchanged, share one); lists: the parts of a split.
    """

    simulation: Simulation
    profile: Profile
    nodes: list[op.Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def emit(self, node: op.Node, shape: Shape, encoding: Encoding) -> str:
        """Adds a node; returns the name of its value."""
        self.nodes.append(node)
        self.values[node.name] = Value(shape, encoding)
        return node.name

    def read(self, argument: Any) -> str:
        """The program's name of a value, or of a constant made for a parameter."""
        if isinstance(argument, Ref):
            return self.names[argument.name]
        assert isinstance(argument, Param), "operands are values or parameters"
        if argument.name not in self.values:
            encoding = self.simulation.quantizer(argument.name).encoding
            self.check_codes(argument.name, encoding)
            data = encoding.encode(self.array(argument.name))
            self.emit(op.Constant(argument.name, data), data.codes.shape, data.encoding)
        return argument.name

    def shape(self, argument: Any) -> Shape:
        """Shape of what `read` names."""
        return self.values[self.read(argument)].shape

    def encoding(self, name: str) -> Encoding:
        """Encoding of a value of the program."""
        encoding = self.values[name].encoding
        assert encoding is not None, "rules read codes only"
        return encoding

    def every_real(self, name: str) -> np.ndarray:
        """float64: what the codes of a value stand for, in their order from the lowest."""
        encoding = self.encoding(name)
        codes = encoding.format.values().astype(np.float64)
        return (codes - float(encoding.zero_point)) * float(encoding.scale)

    def result(self, node: Node) -> "Result":
        """Name, encoding and code bounds of what a number-making node writes: those of its closing clamp where it
        has one, of its own site otherwise."""
        site = self.simulation.plan.grid(node.name)
        shape = node.shape
        assert shape is not None, "operators that make numbers return one tensor"
        if self.simulation.plan.sites[site].kind == "accumulator":
            return Result(site, shape, self._accumulator_encoding(node), self.profile.accumulator.low,
                          self.profile.accumulator.high)
        encoding = self.simulation.quantizer(site).encoding
        self.check_codes(site, encoding)
        low, high = encoding.format.low, encoding.format.high
        clamp = next((n for n in self.simulation.model.graph.nodes if n.name == site), node)
        row = operator_of(clamp)
        if row is not None and row.role == "clamp":
            limits = encoding.encode(np.array(bounds(clamp), np.float32)).codes
            low, high = int(limits[0]), int(limits[1])
        return Result(site, shape, encoding, low, high)

    def check_codes(self, site: str, encoding: Encoding) -> None:
        """Raises LoweringError, naming the site, unless its codes are such as the profile takes for activations."""
        integers(site, encoding)
        profile = self.profile
        if (encoding.format.signed != profile.signed or encoding.format.bits > profile.activation_bits
                or (profile.symmetric and encoding.zero_point.any())):
            has = f"{encoding.format} activations" + (" with a zero point" if encoding.zero_point.any() else "")
            raise LoweringError(f"{site!r} has {has}, but profile {profile.name} takes {profile.activations}: "
                                f"use recipe {profile.recipe}, or activations as it has them")

    def weight(self, node: Node) -> Quantized:
        """The node's weight in codes. Raises LoweringError when the profile does not take them."""
        name = node["weight"].name
        quantizer = self.simulation.quantizer(name)
        if quantizer.integer_form is None:
            raise LoweringError(f"weight {name!r} has {quantizer.spec.format}, whose numbers are no multiples of one "
                                "step: add `integers: int8` to its spec to round them to 8-bit integers")
        array = self.array(name)
        if not np.isfinite(array).all():
            raise LoweringError(f"weight {name!r} holds NaN or Inf")
        data = quantizer.integers(array)
        encoding = data.encoding
        low, high = int(data.codes.min(initial=0)), int(data.codes.max(initial=0))
        if low < self.profile.weight_low or high > self.profile.weight_high:
            raise LoweringError(f"weight {name!r} has codes {low} to {high}, but profile {self.profile.name} takes "
                                f"{self.profile.weight_low} to {self.profile.weight_high}: "
                                f"use recipe {self.profile.recipe}, or fewer weight bits")
        self._check_weight_zero(name, encoding.zero_point)
        if encoding.block.sizes not in ((), (1,)):
            raise LoweringError(f"weight {name!r} has one scale per block {encoding.block}, but an integer sum needs "
                                "one per tensor or output channel")
        return data

    def _check_weight_zero(self, name: str, zero: np.ndarray) -> None:
        allowed = self.profile.weight_zero_points
        if not zero.any() or allowed == "any":
            return
        if allowed == "none":
            raise LoweringError(f"weight {name!r} has a zero point, which profile {self.profile.name} does not "
                                "take: make the weights symmetric")
        if (zero != zero.flat[0]).any():
            raise LoweringError(f"weight {name!r} has a zero point per channel, but profile {self.profile.name} takes "
                                "one per tensor: use `block: tensor`, or make the weights symmetric")

    def bias(self, node: Node) -> np.ndarray | None:
        """int32 [O] at the scale of the node's sums. Raises LoweringError when it does not fit."""
        if node["bias"] is None:
            return None
        name = node["bias"].name
        array = self.array(name).astype(np.float64)
        scale = self._sum_scale(node).astype(np.float64)
        steps = np.abs(array / scale).max(initial=0)
        limit = self.profile.bias
        if not steps <= limit.high:
            raise LoweringError(f"the bias of {node.name!r} is {steps:.3g} steps of its sums and does not fit "
                                f"{limit}: its weights are too fine beside it; use a coarser weight scale")
        return Encoding(limit, scale, 0, Block((1,)) if scale.ndim else Block()).encode(array).codes

    def _sum_scale(self, node: Node) -> np.ndarray:
        return constants.accumulator_scale(self.encoding(self.read(node["input"])),
                                           self.simulation.quantizer(node["weight"].name).integer_encoding)

    def _accumulator_encoding(self, node: Node) -> Encoding:
        """int32 at the scale of the sums, per channel of the result where weights are."""
        scale = self._sum_scale(node)
        if not scale.ndim:
            return Encoding(self.profile.accumulator, scale)
        assert node.shape is not None, "a dot product returns one tensor"
        row = operator_of(node)
        axis = 1 if row is not None and row.name == "conv" else len(node.shape) - 1
        shape = [1] * len(node.shape)
        shape[axis] = scale.size
        return Encoding(self.profile.accumulator, scale.reshape(shape), 0, Block((*[-1] * axis, 1)))

    def array(self, name: str) -> np.ndarray:
        """A parameter or buffer of the model."""
        return self.simulation.model.tensor(name).detach().cpu().numpy()


def integers(site: str, encoding: Encoding) -> None:
    """Raises LoweringError, naming the site, unless its codes are integers."""
    if not isinstance(encoding.format, Int):
        raise LoweringError(f"{site!r} has {encoding.format}, which an integer program does not compute with: "
                            "use an integer format there, or stay with the simulation")


@dataclass(frozen=True)
class Result:
    """What a node writes: name, shape, encoding, and the bounds of its codes."""

    name: str
    shape: Shape
    encoding: Encoding
    low: int
    high: int
