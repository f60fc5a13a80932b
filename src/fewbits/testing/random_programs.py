"""Programs of random networks, under recipes and profiles in turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, recipe
from fewbits.testing.random_networks import (
    random_language_network,
    random_layers_network,
    random_masked_network,
    random_network,
)

_UNEVEN = Recipe.model_validate({
    "version": 1, "weights": {"format": "ternary"}, "activations": {"format": "uint8"},
    "rules": [{"op": "conv", "activations": {"format": "ternary"}, "optional": True},
              {"op": "linear", "activations": {"format": "binary"}, "optional": True}]})
_BINARY = Recipe.model_validate({
    "version": 1, "weights": {"format": "binary", "block": "tensor"}, "activations": {"format": "uint8"},
    "rules": [{"op": op, "activations": {"format": format, "scale": "unit"}, "optional": True}
              for op, format in (("conv", "binary"), ("batch_norm", "binary"), ("linear", "ternary"),
                                 ("function", "e2m1"))]})
def _with_inner(preset: str) -> Recipe:
    """A preset with 12 bits for inner values."""
    return Recipe.model_validate(recipe(preset).model_dump() | {"inner": {"format": "int12"}})


_VARIANTS: tuple[tuple[str | Recipe, str, Literal["fold", "keep"]], ...] = (
    ("w8a8", "onnxruntime", "fold"), ("w8a8-per-tensor", "onnxruntime", "fold"),
    ("w7a8", "onnxruntime-portable", "fold"), ("w4a8", "onnxruntime", "fold"), (_UNEVEN, "onnxruntime", "fold"),
    ("w8a8-per-tensor", "onnxruntime", "keep"), (_UNEVEN, "onnxruntime", "keep"), (_BINARY, "onnxruntime", "keep"),
)
_INNER: tuple[tuple[Recipe, str, Literal["fold", "keep"]], ...] = (
    (_with_inner("w8a8"), "onnxruntime", "fold"), (_with_inner("w7a8"), "onnxruntime-portable", "fold"),
)
Example = torch.Tensor | tuple[torch.Tensor, ...]
_LANGUAGE = 16  # one network of so many reads row numbers


@dataclass(frozen=True)
class RandomProgram:
    """A program, inputs for it, and the names of the operators that its network was captured with and folded into."""

    program: Program
    inputs: dict[str, np.ndarray]
    operators: frozenset[str]


def random_program(seed: int) -> RandomProgram:
    """The program of the random network of that seed."""
    if seed % _LANGUAGE == _LANGUAGE - 3:
        net, example = random_language_network(seed)
        return _lowered(seed, net, example, example)
    net, example = random_network(seed)
    return _lowered(seed, net, example, example / 1.3)


def random_inner_program(seed: int) -> RandomProgram:
    """The program of the random network of that seed with 12 bits for its inner values."""
    net, example = random_network(seed)
    return _lowered(seed, net, example, example / 1.3, _INNER)


def random_layers_program(seed: int) -> RandomProgram:
    """The program of the random network of that seed that is made of what the records of operators name."""
    net, example = random_layers_network(seed)
    return _lowered(seed, net, example, example / 1.3)


def random_masked_program(seed: int) -> RandomProgram:
    """The program of the random network of that seed that reads token numbers and a mask."""
    net, example = random_masked_network(seed)
    return _lowered(seed, net, example, example)


def _lowered(seed: int, net: nn.Module, example: Example, batch: Example, variants: Sequence[
        tuple[str | Recipe, str, Literal["fold", "keep"]]] = _VARIANTS) -> RandomProgram:
    """batch: what it is calibrated on; less than is run, so that codes saturate too."""
    by, profile, norms = variants[seed % len(variants)]
    captured = capture(net, example)
    operators = _operators(captured)
    model = fold(captured, norms=norms)
    program = lower(calibrate(model, plan(model, by), [batch]), profile)
    given = example if isinstance(example, tuple) else (example,)
    inputs = {name: tensor.numpy() for name, tensor in zip(program.inputs, given, strict=True)}
    return RandomProgram(program, inputs, operators | _operators(model))


def _operators(model: Model) -> frozenset[str]:
    return frozenset(node.op for node in model.graph.nodes if node.operator is not None)
