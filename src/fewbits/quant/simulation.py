"""The Simulation: a captured model with the fake quantizers of a plan."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.errors import CalibrationError
from fewbits.graph.graph import Node
from fewbits.graph.model import Model, Tensors, Visitor
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import ACCUMULATOR, Int
from fewbits.options import options_checked, shown
from fewbits.program.inputs import without_batch_axis
from fewbits.program.profile import Profile
from fewbits.quant.batch_norm import affine, channel_axis, is_still
from fewbits.quant.clipping import warn_of_clipping
from fewbits.quant.encoding_table import EncodingTable, TensorEncoding
from fewbits.quant.fake_quantize import FakeQuantize, Mode, fake_quantize, fake_quantize_by_own_range
from fewbits.quant.plan import Kind, Plan, Treatment
from fewbits.quant.stretched import warn_of_stretching

_SAME_CODE = 2.0**-14  # means of fewer than 16 384 codes that lie no farther from a tie lie on it, but for float32
LARGEST_BIAS = 2.0 ** (ACCUMULATOR.bits - 2)  # half the accumulator, so that sums have room beside it


class Simulation(nn.Module):
    """An ordinary, trainable nn.Module: `train`, `eval`, `to`, `deepcopy`, `state_dict`, `parameters` work.

    model: the captured float model, whose parameters the simulation shares; plan: what becomes of it.
    Called like the user's model. Its quantizers observe, simulate or are off (`set_mode`).
    Raises CalibrationError for a plan of another model.
    """

    def __init__(self, model: Model, plan: Plan):
        super().__init__()
        if stranger := _stranger(model, plan):
            raise CalibrationError(f"the plan is of another model, {stranger}: make it from this one, with "
                                   "fb.plan(model, recipe)")
        if model.folded and not plan.folded:
            raise CalibrationError("the plan was made before fb.fold(model), which made other nodes: make it from the "
                                   "folded model, with fb.plan(model, recipe)")
        self.model, self.plan = model, plan
        self._quantizers = nn.ModuleDict({_key(site.name): FakeQuantize(site)
                                          for site in plan.sites.values()
                                          if site.spec is not None and site.kind != "dynamic"})
        self._mode: Mode = "off"
        self._averages_codes = False
        self._reference: tuple[Model, ...] = ()  # a tuple, so that it is no part of this module
        self.eval()

    def quantizers(self) -> Iterator[FakeQuantize]:
        """All of them, in the plan's order."""
        for module in self._quantizers.values():
            assert isinstance(module, FakeQuantize)
            yield module

    def quantizer(self, site: str) -> FakeQuantize:
        """The quantizer of one tensor. Raises CalibrationError when the tensor has none."""
        if _key(site) not in self._quantizers:
            raise CalibrationError(f"no tensor is called {site!r}: print(sim.plan) lists them")
        module = self._quantizers[_key(site)]
        assert isinstance(module, FakeQuantize)
        return module

    def compute_encodings(self, callback: "Callable[[Simulation], object]") -> None:
        """Finds every encoding anew from what `callback` runs through this simulation: AIMET's way of calibrating.

        callback: called once, in evaluation mode and without gradients, with the simulation, which is float meanwhile;
        it calls it on batches as it sees fit. Then the simulation simulates.
        Raises CalibrationError, naming the tensor, for NaN or Inf and for a tensor that was never reached.
        """
        if not callable(callback):
            raise CalibrationError(f"callback is {shown(callback)}: give a function that takes the simulation and runs "
                                   "it on batches")
        for quantizer in self.quantizers():
            quantizer.observer = quantizer.spec.observer()
        training = self.training
        self.eval()
        self.set_mode("observe")
        with torch.no_grad():
            self.observe_parameters()
            callback(self)
        self.fit()
        self.set_mode("simulate")
        self.train(training)

    def observe_parameters(self) -> None:
        """Shows the weights and constants to their quantizers. Raises CalibrationError for one without numbers."""
        for site in self.plan.sites.values():
            if site.kind in ("weight", "constant"):
                tensor = self.model.tensor(site.name)
                if tensor.numel() == 0:
                    raise CalibrationError(f"{site.name!r} of shape {tuple(tensor.shape)} holds no numbers: leave its "
                                           "layer out of the network")
                self.quantizer(site.name)(tensor)

    def fit(self) -> None:
        """Finds the encodings for what was observed, such that biases fit (`make_biases_fit`). Warns where a range cuts
        off more than it gains (ClippingWarning), or a few numbers stretch one (StretchWarning). Raises
        CalibrationError, naming the tensor."""
        for quantizer in self.quantizers():
            quantizer.fit()
        warn_of_clipping(self.quantizers())
        warn_of_stretching(quantizer.stretch for quantizer in self.quantizers() if quantizer.kind == "activation")
        self.make_biases_fit()

    def make_biases_fit(self) -> None:
        """Raises weight scales whose products are so fine that the bias would not fit 32 bits.

        It concerns channels whose weights are next to nothing beside their bias, as folded batch norms leave them;
        their weights round to 0, which changes the sums by less than a step of the output.
        """
        for node in self.model.graph.everything:
            if node.role != "dot" or node["bias"] is None or not self.sums_integers(node):
                continue
            weight = self.quantizer(node["weight"].name)
            bias = self.model.tensor(node["bias"].name).detach().double().abs().cpu().numpy()
            x_scale = float(self.quantizer(self.plan.grid(node["input"].name)).scale)
            needed = bias / (x_scale * LARGEST_BIAS)
            old, form = weight.encoding, weight.integer_form
            needed = needed / (form.step if form else 1.0)
            needed = needed.reshape(old.scale.shape) if old.scale.size == needed.size else needed.max()
            if (needed > old.scale).any():
                weight.encoding = Encoding(old.format, np.maximum(old.scale, needed), old.zero_point, old.block)

    def encodings(self) -> EncodingTable:
        """Minimum, maximum, scale and offset of every tensor that has codes, in the plan's order; prints as a table.
        Raises CalibrationError where one was not found yet."""
        return EncodingTable(TensorEncoding.of(quantizer.site, quantizer.kind, quantizer.encoding)
                             for quantizer in self.quantizers())

    @options_checked
    def set_mode(self, mode: Mode, kinds: Collection[Kind] | None = None) -> None:
        """Lets every quantizer, or those of some kinds of tensors, observe, simulate, or do nothing.

        The simulation's own mode is that of all of them together: `simulate` once any does.
        """
        for quantizer in self.quantizers():
            if kinds is None or quantizer.kind in kinds:
                quantizer.mode = mode
        if kinds is None or mode == "simulate" or all(quantizer.mode != "simulate" for quantizer in self.quantizers()):
            self._mode = mode

    @property
    def mode(self) -> Mode:
        """What its quantizers do together (`set_mode`)."""
        return self._mode

    def follow(self, profile: Profile) -> None:
        """Rounds as that profile does where profiles differ by more than the last bit of a float: those that rescale by
        integers round an average pool on the grid of its input first (docs/numerics.md, eq. 22). Lowering sets it to
        the profile of the program."""
        self._averages_codes = profile.rescaling != "float"

    def averages_codes(self, node: Node) -> bool:
        """Whether a node is an average pool that is rounded on the grid of its input."""
        windowed = node.op == "average_pool" or (node.op == "adaptive_average_pool"
                                                 and set((node.shape or ())[2:]) != {1})
        return (self._averages_codes and self._mode == "simulate" and windowed
                and self.plan.steps[node.name].treatment is not Treatment.FLOAT)

    def accumulator_scale(self, node: Node) -> torch.Tensor:
        """float32 [] or [O]: scale of a dot product's sums and of its bias, x_scale · weight_scale (eq. 4)."""
        x = self.quantizer(self.plan.grid(node["input"].name))
        weight = self.quantizer(node["weight"].name)
        scale = weight.integer_scale
        return x.integer_scale * (scale.reshape(-1) if scale.ndim else scale)

    def sums_integers(self, node: Node) -> bool:
        """Whether a dot product's operands are both integers, or taken as such, under one scale per tensor or output
        channel, so that its sums are."""
        grid, name = self.plan.grid(node["input"].name), node["weight"].name
        if grid not in self.plan.sites or name not in self.plan.sites:
            return False
        x, weight = self.quantizer(grid), self.quantizer(name)
        return (x.mode == weight.mode and x.integer_form is not None and weight.integer_form is not None
                and weight.spec.block in (TENSOR, CHANNEL))

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        inputs, alone = self.model.batched(self.model.named_inputs(args, kwargs))
        return without_batch_axis(self.run(inputs)) if alone else self.run(inputs)

    def run(self, inputs: Tensors, visitor: "SimulationVisitor | None" = None) -> Any:
        """The model's outputs, from inputs by name. Raises CalibrationError where the model was folded after it was
        planned."""
        self.check_unfolded()
        return self.model.run(inputs, visitor or SimulationVisitor(self))

    def check_unfolded(self) -> None:
        """Raises CalibrationError where the model was folded after the simulation was made of it: its nodes are others
        than those that were planned."""
        if self.model.folded and not self.plan.folded:
            raise CalibrationError("the model was folded after it was planned: fold first, then make the plan and the "
                                   "simulation anew")

    def replace_quantizer(self, quantizer: FakeQuantize) -> None:
        """Replaces the quantizer of its tensor, whose encoding and mode it takes over."""
        quantizer.adopt(self.quantizer(quantizer.site))
        quantizer.train(self.training)
        self._quantizers[_key(quantizer.site)] = quantizer

    def progress(self, done: float) -> None:
        """To be called before each training step with the share of all steps that is done, from 0 to below 1: methods
        that work in stages (INQ) go on to the next when it is time."""
        for quantizer in self.quantizers():
            if quantizer.kind == "weight":
                quantizer.progress(done, self.model.tensor(quantizer.site))

    def after_step(self) -> None:
        """To be called after each update of the parameters: methods that bound their weights do so."""
        for quantizer in self.quantizers():
            if quantizer.kind == "weight":
                quantizer.after_step(self.model.tensor(quantizer.site))

    @property
    def reference(self) -> Model:
        """The float model that repairs and reports measure against: the model as it was before any repair."""
        return self._reference[0] if self._reference else self.model

    @property
    def is_repaired(self) -> bool:
        """Whether the parameters are no longer those of the reference."""
        return bool(self._reference)

    def copy(self) -> "Simulation":
        """A simulation of its own, parameters included; the reference, which nobody changes, is shared."""
        return copy.deepcopy(self, {id(model): model for model in self._reference})

    def to_repair(self) -> "Simulation":
        """A copy whose parameters a repair may change. This simulation's model becomes its reference, so it
        must not be trained afterwards."""
        copied = self.copy()
        copied._reference = (self.reference,)
        return copied


class SimulationVisitor(Visitor):
    """Puts each tensor's quantizer between a value and its readers, and each weight's before its node."""

    def __init__(self, simulation: Simulation):
        self.simulation = simulation
        self._sites: Mapping[str, Any] = simulation.plan.sites
        graph = simulation.model.graph
        self._norms, self._dots, self._nodes = graph.norms_behind, graph.dots_before, graph.by_name
        self._carried = graph.carried

    def value(self, name: str, value: Any) -> Any:
        name = self._carried.get(name, name)  # a state has the encoding of what it becomes
        site = self._sites.get(name)
        if name in self._dots and not self.simulation.model.training:
            value = self._rounded_offset(name, value)
        node = self._nodes.get(name)
        if node is not None and self.simulation.averages_codes(node):
            value = self._averaged_codes(node, value)
        return value if site is None or site.spec is None else self.simulation.quantizer(name)(value)

    def operand(self, node: Node, argument: str, value: Any) -> Any:
        if argument != "input" or self.simulation.mode != "simulate" or f"{node.name}.input" not in self._sites:
            return value
        return fake_quantize_by_own_range(value)

    def parameter(self, node: Node, argument: str, name: str, value: torch.Tensor) -> torch.Tensor:
        if node.role == "dot" and argument == "bias":
            return self._bias(node, value)
        if argument not in self.simulation.plan.steps[node.name].coded:
            return value
        return self.simulation.quantizer(name)(value) if name in self._sites else value

    def _averaged_codes(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        """A pool's means, rounded half away from 0 as codes of its input (eq. 22)."""
        grid = self.simulation.plan.grid(node.refs[0])
        if grid not in self._sites or not isinstance(self.simulation.quantizer(grid).spec.format, Int):
            return value
        quantizer = self.simulation.quantizer(grid)
        scale, zero_point = quantizer.scale.detach().double(), quantizer.zero_point
        code = value.detach().double() / scale + zero_point
        rounded = code.sign() * (code.abs() + 0.5 + _SAME_CODE).floor()
        return value + (((rounded - zero_point) * scale).to(value.dtype) - value).detach()

    def _bias(self, node: Node, bias: torch.Tensor) -> torch.Tensor:
        """Biases quantized with the scale of the sums they are added to, in float64 as lowering does; unchanged where a
        float or a table format makes the sums no integers."""
        if self.simulation.mode != "simulate" or node.name in self._norms or not self.simulation.sums_integers(node):
            return bias
        scale = self.simulation.accumulator_scale(node).double()
        return fake_quantize(bias.double(), scale, 0, ACCUMULATOR.low, ACCUMULATOR.high).to(bias.dtype)

    def _rounded_offset(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A batch norm's result with its offset quantized by the scale of the sums, as lowering does (eq. 15);
        a sign and other tables take it into their thresholds unrounded."""
        simulation, norm, dot = self.simulation, self._norms[self._dots[name].name], self._dots[name]
        grid = simulation.plan.grid(name)
        site = simulation.plan.sites.get(grid)
        if simulation.mode != "simulate" or site is None or not simulation.sums_integers(dot) or (
                site.spec is not None and not isinstance(site.spec.format, Int)):
            return value
        gain, offset = affine(simulation.model, dot, norm)
        scale = simulation.accumulator_scale(dot).double()
        scale = scale * torch.where(is_still(gain, offset, scale), 1.0, gain.abs())
        shift = fake_quantize(offset, scale, 0, ACCUMULATOR.low, ACCUMULATOR.high) - offset
        axis = channel_axis(dot)
        shape = [1] * value.ndim
        shape[axis] = -1
        return value + shift.to(value.dtype).reshape(shape)


def _key(site: str) -> str:
    """A module's name may hold no dot, and be no attribute of a module: `keys`, `pop` and `to` are names of layers."""
    return "/" + site.replace(".", "/")


def _stranger(model: Model, plan: Plan) -> str:
    """The first thing that model and plan do not share, as a part of a sentence; nothing where they fit."""
    shapes = model.shapes()
    for site in plan.sites.values():
        if site.kind not in ("input", "activation", "weight", "constant"):
            continue  # of a node, which `steps` names
        if site.name not in shapes:
            return f"whose tensor {site.name!r} this one does not have"
        shape = shapes[site.name]
        if site.kind in ("weight", "constant") and shape != site.shape:
            return f"whose {site.name!r} has shape {tuple(site.shape)}, not {shape}"
    return next((f"which has no {node.name!r}" for node in model.graph.everything if node.name not in plan.steps), "")
