"""A zoo of architectures: each gives a program whose codes no engine disputes, or one error that names all it lacks.

Run with -s, it prints how many pass and, over all that do not, which operators they lack.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import zoo_attention
import zoo_convolutional
import zoo_images
import zoo_mobile
import zoo_sequences
from torch import nn
from torch.utils._pytree import tree_leaves
from zoo_layers import Example, Made

from fewbits.capture.capture import capture
from fewbits.engines.executable import Executable
from fewbits.errors import UnsupportedError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import differences

FAMILIES: dict[str, tuple[Callable[[], Made], ...]] = {
    "convolutional": zoo_convolutional.NETWORKS,
    "mobile": zoo_mobile.NETWORKS,
    "attention": zoo_attention.NETWORKS,
    "images": zoo_images.NETWORKS,
    "sequences": zoo_sequences.NETWORKS,
}

# How many pass. A change may raise a number, none may lower one.
FLOORS = {"convolutional": 35, "mobile": 16, "attention": 21, "images": 25, "sequences": 23}

# Of the outputs, calibrated on the very example that is run. Measured: 34.7 (edsr) and up, median 47.
LOWEST_SQNR = 30.0

_PROBLEM = re.compile(r"^  .*? \(([^()]+)\)(?: at \S+)?: (.*)$", re.MULTILINE)
_INPUT = re.compile(r"^  input .*: it is (\w+)", re.MULTILINE)


def made(build: Callable[[], Made]) -> Made:
    """The network in eval mode with seeded weights and batch norms that do something, and its example."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(build.__name__.encode()))
        net, example = build()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for name, tensor in module.state_dict().items():
                    if name != "num_batches_tracked":
                        tensor.uniform_(0.5, 1.5)
    return net.eval(), example


def lacking(net: nn.Module, example: Example) -> list[str]:
    """What keeps a network from becoming a program: nothing, when one was made, checked, and found near the network.

    Each is an ATen operator, or the name of a known operator and why this use of it is refused.
    """
    given = example if isinstance(example, tuple) else (example,)
    with torch.no_grad():
        expected = tree_leaves(net(*given))
        model = fold(capture(net, example))
        folded = tree_leaves(model(*given))
    for real, ours in zip(expected, folded, strict=True):
        assert (real - ours).abs().max() <= 1e-4 * (real.max() - real.min())
    try:
        resolved = plan(model, "w8a8")
    except UnsupportedError as error:
        return problems(str(error))
    program = lower(calibrate(model, resolved, [example]), "onnxruntime")
    found = differences(program, {name: x.numpy() for name, x in zip(program.inputs, given, strict=True)})
    assert not found, "; ".join(map(str, found))
    for real, ours in zip(expected, tree_leaves(Executable(program)(*given)), strict=True):
        decibels = 10 * torch.log10(real.square().sum() / (real - ours).square().sum())
        assert decibels >= LOWEST_SQNR, f"{decibels:.1f} dB"
    return []


def problems(error: str) -> list[str]:
    """The lines of an UnsupportedError without the places."""
    found = [what if what.startswith("aten") else f"{what}: {why}" for what, why in _PROBLEM.findall(error)]
    found += [f"{kind} input" for kind in _INPUT.findall(error)]
    assert len(found) == int(error.split()[0]), f"a problem that was not read: {error}"
    return found


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    names = Counter(build.__name__ for builds in FAMILIES.values() for build in builds)
    assert len(names) >= 40
    # Some families of images and of tokens are called alike; within one file names are functions and so unique.
    assert names.total() - len(names) <= 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_each_becomes_a_program_or_says_all_it_lacks(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    lacked = {build.__name__: lacking(*made(build)) for build in FAMILIES[family]}
    passing = [name for name, lacks in lacked.items() if not lacks]
    networks = Counter(problem for lacks in lacked.values() for problem in set(lacks))
    with capsys.disabled():
        print(f"\n{family}: {len(passing)} of {len(lacked)} pass")
        for problem, count in networks.most_common():
            print(f"  {count:3} lack {problem}")
    assert len(passing) >= FLOORS[family], f"{family}: only {', '.join(passing)} pass"
