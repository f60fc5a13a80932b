"""Shortcuts apart from what layers read: no number changes, and each has an encoding of its own."""

import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.fold.shortcuts import separate_shortcuts
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.tasks.resnet_cifar import BasicBlock
from fewbits.testing import differences
from fewbits.train.fit import fit
from fewbits.train.registry import trainable


class Net(nn.Module):
    """Two residual blocks, one of them narrower than its shortcut, and a value below 0 that a layer and a sum read."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2))
        self.signed, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = self.blocks(self.stem(x).relu())
        below = self.signed(x)
        return self.head((below + self.signed(below)).relu().mean((2, 3)))


def captured():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Net(), torch.randn(8, 3, 8, 8)
        net(x)
    return fold(capture(net.eval(), x), norms="keep"), x


def test_no_number_changes():
    model, x = captured()
    before = model(x)
    names = {node.name for node in model.graph.nodes}
    assert torch.equal(separate_shortcuts(model)(x), before)
    added = {node.name for node in model.graph.nodes} - names
    assert added == {"relu.for_layers", "blocks.0.relu2.for_layers"}
    again = {node.name for node in separate_shortcuts(model).graph.nodes}
    assert again == names | added, "twice is once"


def test_layers_get_few_bits_and_shortcuts_more():
    model, x = captured()
    decided = plan(separate_shortcuts(model), "lsq-w2a2")
    assert str(decided.sites["blocks.0.relu2.for_layers"].spec.format) == "uint2"
    assert str(decided.sites["blocks.0.relu2"].spec.format) == "uint8"
    learning = trainable(calibrate(model, decided, [x]))
    fit(learning, [(x, torch.arange(8) % 3)], epochs=2, quiet=True)
    program = lower(learning)
    assert not differences(program, {program.inputs[0]: x.numpy()})


def test_sizes_stay_free():
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), BasicBlock(4, 4, 1)).eval(), torch.rand(2, 3, 8, 8)
    model = separate_shortcuts(fold(capture(net, x)))
    program = lower(calibrate(model, plan(model, "w8a8"), [x]))
    other = {program.inputs[0]: torch.rand(1, 3, 12, 10).numpy()}
    assert not differences(program, other)
    assert {program.values[node.name].free for node in program.nodes if node.name in program.values} == {(2, 3)}
