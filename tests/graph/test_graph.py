"""The graph's indices: built once, shared by copies, and equal to what a search would find."""

import copy

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.graph.graph import Graph, Input, Node, Param, Ref
from fewbits.graph.model import Visitor
from fewbits.graph.operators import operator_of


class Twice(nn.Module):
    """One weight under two names, a residual connection, a live batch norm, and a value that is read and returned."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second.weight = self.first.weight

    def forward(self, x):
        inner = self.norm(self.first(x))
        return self.second(inner) + inner, inner


@pytest.fixture
def model():
    return fb.capture(Twice().eval(), torch.randn(3, 4))


def test_indices_are_what_a_search_finds(model):
    graph = model.graph
    for name in graph.names():
        assert graph.consumers[name] == tuple(node for node in graph.nodes if name in node.refs)
    for name in graph.param_consumers:
        assert graph.param_consumers[name] == tuple(node for node in graph.nodes if name in node.params)
    assert [graph.by_name[name] for name in graph.positions] == list(graph.nodes)
    assert list(graph.positions.values()) == list(range(len(graph.nodes)))
    assert graph.outputs == set(model.graph.structure)


def test_a_value_is_spent_after_its_last_reader_unless_it_is_returned(model):
    spent = [name for node in model.graph.nodes for name in model.graph.spent[node.name]]
    assert sorted(spent) == ["first", "second", "x"]
    assert model.graph.spent["add"] == ("second",)


def test_norms_behind_are_those_that_alone_read_a_layer(model):
    assert {dot: norm.name for dot, norm in model.graph.norms_behind.items()} == {"first": "norm"}
    assert {norm: dot.name for norm, dot in model.graph.dots_before.items()} == {"norm": "first"}


def test_copies_share_the_graph_and_its_indices(model):
    readers = model.graph.consumers
    assert copy.deepcopy(model).graph is model.graph
    assert copy.deepcopy(model).graph.consumers is readers


def test_a_node_has_its_row(model):
    for node in model.graph.nodes:
        assert node.operator is operator_of(node.target)
        assert (node.op, node.role) == (node.operator.name, node.operator.role)
    unknown = Node("f", torch.ops.aten.fft_fft.default, operator_of(torch.ops.aten.fft_fft.default), {}, 0, "", "", ())
    assert (unknown.operator, unknown.op, unknown.role) == (None, "", None)


def test_a_visitor_is_given_the_name_a_parameter_has_here(model):
    """Both names of a tied weight, though they are one tensor."""
    seen = []

    class Names(Visitor):
        def parameter(self, node, argument, name, value):
            seen.append((node.name, argument, name))
            return value

    model.run({"x": torch.randn(2, 4)}, Names())
    weights = [(node, name) for node, argument, name in seen if argument == "weight" and node != "norm"]
    assert [node for node, _ in weights] == ["first", "second"]
    assert [name for _, name in weights] == [model.graph.by_name[node]["weight"].name for node, _ in weights]


def test_a_changed_node_keeps_its_row_and_forgets_what_it_read():
    add = torch.ops.aten.add.Tensor
    node = Node("sum", add, operator_of(add), {"self": Ref("a"), "other": Param("w"), "alpha": 1}, 2, "", "", (None, 4))
    assert (node.refs, node.params) == (("a",), ("w",))
    other = node.changed(lambda leaf: Ref("b") if leaf == Ref("a") else leaf)
    assert (other.refs, other.params, other.operator, other["alpha"]) == (("b",), ("w",), node.operator, 1)
    assert node.refs == ("a",)
    assert other.run({"self": torch.tensor([1.0]), "other": torch.tensor([2.0]), "alpha": 3}) == 7


def test_indices_are_built_once():
    """A network of any depth is searched once, whoever asks, however often."""
    count = 0

    class Counted(Node):
        def __getattribute__(self, name):
            nonlocal count
            count += name == "refs"
            return super().__getattribute__(name)

    relu = torch.ops.aten.relu.default
    nodes = tuple(Counted(f"n{i}", relu, operator_of(relu), {"self": Ref(f"n{i - 1}" if i else "x")}, 1, "", "", (2,))
                  for i in range(50))
    graph = Graph((Input("x", (2,), "float32"),), nodes, "n49", "tensor")
    for _ in range(10):
        assert graph.consumers["n3"] == (nodes[4],)
        assert graph.spent["n3"] == ("n2",)
    assert count == 2 * len(nodes)


def test_a_value_may_go_away_many_times_over():
    """Layers that do nothing at inference, one behind the other."""
    net = nn.Sequential(nn.Linear(4, 4), *(nn.Dropout() for _ in range(5)), nn.ReLU(), nn.Identity(), nn.Dropout())
    x = torch.randn(3, 4)
    folded = fb.fold(fb.capture(net.eval(), x))
    assert [node.op for node in folded.graph.nodes] == ["linear", "clamp"]
    assert folded.graph.structure == folded.graph.nodes[-1].name
    assert torch.equal(folded(x), net(x))
