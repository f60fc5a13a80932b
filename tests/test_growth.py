"""Work grows with a network's depth, not with its square: instructions are counted, which nothing else on the machine
changes. `python -m benchmarks.growth` has the times, at 50 to 800 layers, and those of what is not ours.

`explain` is no row here: it runs the whole network twice for each tensor, which is what it measures.
"""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.optimize.adaround import Schedule
from fewbits.writers.onnx.program import onnx_bytes

FEW, MANY = 20, 80  # layers
OVER_LINEAR = 1.3
_SHORT = Schedule(iterations=2)
_OURS = (str(Path(fb.__file__).parent), __file__)


class Stack:
    """What each verb needs, of a stack of conv-BN-ReLU layers."""

    def __init__(self, depth: int, folder):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for _ in range(depth):
            conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
            nn.init.dirac_(conv.weight)
            layers += [conv, nn.BatchNorm2d(2), nn.ReLU()]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval()
        self.x = torch.rand(2, 2, 4, 4)
        self.captured = fb.capture(net, self.x)
        self.model = fb.fold(copy.deepcopy(self.captured))
        self.live = fb.fold(copy.deepcopy(self.captured), norms="keep")
        self.plan = fb.plan(self.model, "w8a8")
        self.sim = fb.calibrate(self.model, self.plan, [self.x])
        self.trained = fb.calibrate(self.live, fb.plan(self.live, "w8a8"), [self.x])
        self.program = fb.lower(self.sim)
        self.path = folder / f"{depth}.fewbits"
        self.program.save(self.path)


VERBS: dict[str, Callable[[Stack], Any]] = {
    "fold": lambda s: fb.fold(copy.deepcopy(s.captured)),
    "fold, norms kept": lambda s: fb.fold(copy.deepcopy(s.captured), norms="keep"),
    "plan": lambda s: fb.plan(s.model, "w8a8"),
    "plan, norms kept": lambda s: fb.plan(s.live, "w8a8"),
    "calibrate": lambda s: fb.calibrate(s.model, s.plan, [s.x]),
    "simulate": lambda s: s.sim(s.x),
    "simulate, norms kept": lambda s: s.trained(s.x),
    "correct_biases": lambda s: fb.correct_biases(s.sim, [s.x], even_if_worse=True),
    "adaround": lambda s: fb.adaround(s.sim, [s.x], schedule=_SHORT, even_if_worse=True),
    "reconstruct_blocks": lambda s: fb.reconstruct_blocks(s.sim, [s.x], schedule=_SHORT, even_if_worse=True),
    "lower": lambda s: fb.lower(s.sim),
    "lower, norms kept": lambda s: fb.lower(s.trained),
    "ONNX": lambda s: onnx_bytes(s.program.program),
    "save": lambda s: s.program.save(s.path),
    "load": lambda s: fb.load(s.path),
    "run in torch": lambda s: fb.QuantizedModel(s.program.program, "torch")(s.x),
    "compile and run": lambda s: fb.QuantizedModel(s.program.program)(s.x),
}


def steps(work: Callable[[], Any]) -> int:
    """Bytecode instructions of fewbits (and of this file) that a piece of work takes."""
    count = 0

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return step

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.fixture(scope="module")
def stacks(tmp_path_factory) -> tuple[Stack, Stack]:
    folder = tmp_path_factory.mktemp("growth")
    return Stack(FEW, folder), Stack(MANY, folder)


@pytest.mark.parametrize("verb", VERBS)
def test_instructions_grow_with_depth(verb, stacks):
    VERBS[verb](stacks[0])  # what is made on first use
    few, many = (steps(lambda stack=stack: VERBS[verb](stack)) for stack in stacks)
    assert many <= OVER_LINEAR * few * MANY / FEW, f"{few} instructions for {FEW} layers, {many} for {MANY}"


def test_what_is_quadratic_would_be_seen(stacks):
    """A search through all nodes for each of them."""
    few, many = (steps(lambda graph=stack.model.graph: [next(n for n in graph.nodes if n.name == node.name)
                                                        for node in graph.nodes]) for stack in stacks)
    assert many > OVER_LINEAR * few * MANY / FEW
