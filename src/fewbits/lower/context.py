"""What a lowering rule may ask for, and where it puts the nodes it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from fewbits.errors import EncodingError, LoweringError
from fewbits.graph.graph import Node, Param, Ref, Shape
from fewbits.graph.operators import bounds
from fewbits.lower.batch_norm import scaled
from fewbits.numerics.block import Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Int
from fewbits.numerics.integer_form import IntegerForm, levels
from fewbits.program import ops as op
from fewbits.program import requantize as constants
from fewbits.program.profile import Profile
from fewbits.program.value import Dtype, Value
from fewbits.quant.batch_norm import affine, channel_axis
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.inner import inner_values
from fewbits.quant.simulation import Simulation


@dataclass
class Context:
    """The program under construction.

    names: what the values of the graph are called in the program (those that one node makes together with
    its clamp, or passes on unchanged, share one); lists: the parts of a split; outside: while the body of a recurrence
    is made, the nodes in front of it, where constants go.
    """

    simulation: Simulation
    profile: Profile
    nodes: list[op.ProgramNode] = field(default_factory=list)
    outside: list[op.ProgramNode] | None = None
    values: dict[str, Value] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self):
        self._constants: set[str] = set()
        self._nodes = self.simulation.model.graph.by_name
        self._norms = self.simulation.model.graph.norms_behind

    @cached_property
    def _inner(self) -> frozenset[str]:
        """Values that may have wider codes; looked for where a recipe has such codes."""
        return inner_values(self.simulation.model.graph)

    def emit(self, node: op.ProgramNode, shape: Shape, encoding: Encoding | None, dtype: Dtype = "float32") -> str:
        """Adds a node; returns the name of its value. encoding: None for plain numbers, which are of type `dtype`."""
        constant = isinstance(node, _CONSTANTS) or (isinstance(node, op.Dequantize) and node.input in self._constants)
        if isinstance(node, op.Constant):
            self._constants.add(node.name)
        (self.nodes if self.outside is None or not constant else self.outside).append(node)
        self.values[node.name] = Value(shape, encoding, dtype)
        return node.name

    def read(self, argument: Any) -> str:
        """The program's name of a value, or of a constant made for a parameter."""
        if isinstance(argument, Ref):
            return self.names[argument.name]
        assert isinstance(argument, Param), "operands are values or parameters"
        if argument.name not in self.values:
            quantizer = self.simulation.quantizer(argument.name)
            integers(quantizer)
            data = quantizer.integers(self.array(argument.name))
            encoding = self.stored(data.encoding)
            self.check_codes(argument.name, encoding)
            raised = encoding.zero_point.max(initial=0) - data.encoding.zero_point.max(initial=0)
            data = Quantized(data.codes.astype(np.int32) + raised, encoding)
            self.emit(op.Constant(argument.name, data), data.codes.shape, data.encoding)
        return argument.name

    def shape(self, argument: Any) -> Shape:
        """Shape of what `read` names."""
        return self.values[self.read(argument)].shape

    def free(self, argument: Any) -> tuple[int, ...]:
        """Axes of a value of the graph that may have other sizes than the example's."""
        graph = self.simulation.model.graph
        made = graph.by_name.get(argument.name) or graph.inputs_by_name.get(argument.name)
        return () if made is None else made.free

    def encoding(self, name: str) -> Encoding:
        """Encoding of a value of the program that has codes."""
        encoding = self.values[name].encoding
        assert encoding is not None, "rules that make numbers read codes only"
        return encoding

    def every_real(self, name: str) -> np.ndarray:
        """float64: what the codes of a value stand for, in their order from the lowest."""
        encoding = self.encoding(name)
        codes = encoding.format.values().astype(np.float64)
        return (codes - float(encoding.zero_point)) * float(encoding.scale)

    def result(self, node: Node) -> "Emitted":
        """Name, encoding and code bounds of what a number-making node writes: those of its closing clamp where it
        has one, of its own tensor otherwise. Raises LoweringError for activations the profile does not take."""
        site = self.simulation.plan.grid(node.name)
        shape = node.shape
        assert shape is not None, "operators that make numbers return one tensor"
        encoding = self.stored(self.simulation.quantizer(site).encoding)
        if not isinstance(encoding.format, Int):
            raise LoweringError(f"{site!r} has {encoding.format} activations, which only dot products, functions of "
                                f"one number and inputs can write, and {node.name!r} is none: use an integer format "
                                "there")
        self.check_rounding(self.simulation.quantizer(site))
        self.check_codes(site, encoding)
        limits = encoding.encode(np.array(self.clamped(site), np.float32)).codes
        return Emitted(site, shape, encoding, int(limits[0]), int(limits[1]))

    def stored(self, encoding: Encoding) -> Encoding:
        """An activation's encoding in a profile's codes: where these have no sign, signed codes are raised by 2^(b−1),
        and the zero point with them, so that they stand for the same numbers. Wider ones have one everywhere."""
        format = encoding.format
        raised = isinstance(format, Int) and format.signed and not format.narrow and not self.profile.signed
        if not raised or format.bits > self.profile.activation_bits:
            return encoding
        return Encoding(Int(format.bits, signed=False), encoding.scale, encoding.zero_point + 2**(format.bits - 1),
                        encoding.block)

    def check_codes(self, site: str, encoding: Encoding, kind: str = "") -> None:
        """Raises LoweringError, naming the tensor, unless its codes are such as the profile takes for activations."""
        profile = self.profile
        bits = encoding.format.bits
        if encoding.format.signed and profile.activation_bits < bits <= profile.inner_bits and site in self._inner:
            return
        if (encoding.format.signed != profile.signed or encoding.format.bits > profile.activation_bits
                or (profile.symmetric and encoding.zero_point.any())):
            has = f"{encoding.format} activations" + (" with a zero point" if encoding.zero_point.any() else "")
            raise LoweringError(f"{site!r} has {kind}{has}, but profile {profile.name} takes {profile.activations}: "
                                f"use recipe {profile.recipe}, or activations as it has them")

    def check_rounding(self, quantizer: FakeQuantize) -> None:
        """Raises LoweringError where an activation rounds as no profile does."""
        if quantizer.spec.rounding != "half_even":
            raise LoweringError(f"{quantizer.site!r} rounds {quantizer.spec.rounding}, but profile {self.profile.name} "
                                "rounds activations half_even: take the `rounding` out of its spec")

    def clamped(self, site: str) -> tuple[float, float]:
        """Bounds of a tensor's numbers: those of a ReLU or clamp that is part of the node before, else none."""
        node = self._nodes.get(site)
        return (-np.inf, np.inf) if node is None else bounds(node)

    def leaves_sums(self, node: Node) -> bool:
        """Whether a dot product's sums are what the model returns."""
        site = self.simulation.plan.sites.get(self.simulation.plan.grid(node.name))
        return site is not None and site.kind == "accumulator"

    def leaves_floats(self, node: Node) -> bool:
        """Whether a dot product of integers gives floats, because the recipe left its result unquantized."""
        return self.simulation.plan.grid(node.name) not in self.simulation.plan.sites

    def uneven(self, node: Node) -> FakeQuantize | None:
        """The quantizer of what a node writes where its numbers are those of a Float or Levels, else None."""
        site = self.simulation.plan.grid(node.name)
        if site not in self.simulation.plan.sites or self.simulation.plan.sites[site].spec is None:
            return None
        quantizer = self.simulation.quantizer(site)
        return None if isinstance(quantizer.format, Int) else quantizer

    def uneven_encoding(self, quantizer: FakeQuantize) -> Encoding:
        """The integers that an activation of a Float or Levels has in the program. Raises LoweringError where it has
        none, or they span more than the profile's codes."""
        integers(quantizer)
        self.check_rounding(quantizer)
        try:
            encoding = quantizer.integer_encoding
        except EncodingError as error:
            raise LoweringError(f"{quantizer.site!r}: {error}") from error
        self.check_codes(quantizer.site, encoding, f"{quantizer.format} activations, which are stored in ")
        return encoding

    def level_codes(self, quantizer: FakeQuantize) -> np.ndarray:
        """The codes of a Float or Levels activation, ascending: uint8."""
        format, zero_point = quantizer.format, int(self.uneven_encoding(quantizer).zero_point)
        assert not isinstance(format, Int), "integers are all their codes"
        return (levels(format, integers(quantizer)) + zero_point).astype(np.uint8)

    def operands(self, node: Node, unscaled: bool = False) -> tuple[Quantized, np.ndarray | None]:
        """Weight and bias of a dot product, its batch norm inside; or the weight as it is, and no bias (`unscaled`).

        bias: int32 [O] at the scale of the sums. Raises LoweringError when the profile does not take them.
        """
        weight = self._weight(node)
        norm = self._norms.get(node.name)
        if unscaled:
            return weight, None
        gain, offset = (part.cpu().numpy() for part in affine(self.simulation.model, node, norm))
        if norm is not None:
            weight = scaled(node["weight"].name, weight, gain, offset,
                            self.encoding(self.read(node["input"])))
        return weight, None if norm is None and node["bias"] is None else self._bias(node, weight, offset)

    def is_inside(self, norm: Node) -> bool:
        """Whether a batch norm moves into the dot product before it."""
        return norm.name in self.simulation.model.graph.dots_before

    def gain_and_offset(self, node: Node) -> tuple[np.ndarray, np.ndarray]:
        """float64 [O]: by how much a dot product's sums count, in units of its result, and what is added to them."""
        gain, offset = (part.cpu().numpy() for part in affine(self.simulation.model, node, self._norms.get(node.name)))
        scale = constants.accumulator_scale(self.encoding(self.read(node["input"])), self._weight(node).encoding)
        return gain * scale.astype(np.float64), offset

    def _weight(self, node: Node) -> Quantized:
        return self.weight_of(node["weight"].name)

    def weight_of(self, name: str) -> Quantized:
        """A weight as integers, one scale for all or per output channel. Raises LoweringError where it has none, or the
        profile does not take them."""
        quantizer = self.simulation.quantizer(name)
        if quantizer.integer_form is None:
            raise LoweringError(f"weight {name!r} has {quantizer.format}, whose numbers are no multiples of one "
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

    def _bias(self, node: Node, weight: Quantized, bias: np.ndarray) -> np.ndarray:
        scale = constants.accumulator_scale(self.encoding(self.read(node["input"])), weight.encoding)
        steps = np.abs(bias / scale.astype(np.float64)).max(initial=0)
        limit = self.profile.bias
        if not steps <= limit.high:
            raise LoweringError(f"the bias of {node.name!r} is {steps:.3g} steps of its sums and does not fit "
                                f"{limit}: its weights are too fine beside it; use a coarser weight scale")
        return Encoding(limit, scale, 0, Block((1,)) if scale.ndim else Block()).encode(bias).codes

    def sums(self, node: Node, weight: Quantized) -> Encoding:
        """int32 at the scale of a dot product's sums, per channel of the result where the weights are."""
        scale = constants.accumulator_scale(self.encoding(self.read(node["input"])), weight.encoding)
        if not scale.ndim:
            return Encoding(self.profile.accumulator, scale)
        assert node.shape is not None, "a dot product returns one tensor"
        axis = channel_axis(node)
        shape = [1] * len(node.shape)
        shape[axis] = scale.size
        return Encoding(self.profile.accumulator, scale.reshape(shape), 0, Block((*[-1] * axis, 1)))

    def array(self, name: str) -> np.ndarray:
        """A parameter or buffer of the model."""
        return self.simulation.model.tensor(name).detach().cpu().numpy()


def integers(quantizer: FakeQuantize) -> IntegerForm:
    """How a tensor's numbers are integers. Raises LoweringError, naming the tensor, when they are none."""
    form = quantizer.integer_form
    if form is None:
        raise LoweringError(f"{quantizer.site!r} has {quantizer.format}, whose numbers are no multiples of one "
                            "step: add `integers: int8` to its spec to round them, or stay with the simulation")
    return form


@dataclass(frozen=True)
class Emitted:
    """What a node writes: name, shape, encoding, and the bounds of its codes."""

    name: str
    shape: Shape
    encoding: Encoding
    low: int
    high: int


_CONSTANTS = (op.Constant, op.FloatConstant, op.ExactConstant)

Rules = Mapping[str, Callable[[Context, Node], None]]
"""By the name of an operator, what puts its nodes into the program under construction."""
