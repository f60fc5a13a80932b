"""Inner values: which they are, that they hold more bits where a recipe gives them, and that every engine agrees."""

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import LoweringError, ProgramError
from fewbits.lower.lower import lower
from fewbits.program import ops as op
from fewbits.program.examples import as_program
from fewbits.program.ops.record import Example
from fewbits.program.ops.samples import WIDE, X, Y, weight
from fewbits.program.value import Value
from fewbits.quant.inner import inner_values
from fewbits.testing import differences

WIDE_SUMS = fb.recipe("w8a8").model_copy(update={"inner": fb.recipe("default-w8a8").inner})


class Block(nn.Module):
    """Attention with explicit scores and a gated layer, both added to their input, as in language models."""

    def __init__(self, norm: type = nn.LayerNorm, division: bool = True):
        super().__init__()
        self.norm, self.after, self.division = norm(16), norm(16), division
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.up, self.gate, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.scale = nn.Parameter(torch.full((16,), 0.7))

    def forward(self, x):
        n = self.norm(x)
        scores = self.query(n) @ self.key(n).transpose(1, 2)
        scores = scores / 4 if self.division else scores
        x = x + self.out(scores.softmax(-1) @ self.value(n)) * self.scale
        n = self.after(x)
        return x + self.down(self.gate(n).sigmoid() * self.up(n))


class Reader(nn.Module):
    """Two blocks and a head, which reads what a norm makes of their sum."""

    def __init__(self, **how):
        super().__init__()
        self.enter, self.first, self.second = nn.Linear(8, 16), Block(**how), Block(**how)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.norm(self.second(self.first(self.enter(x)))))


class Cell(nn.Module):
    """An LSTM by hand: the gates' sums go into functions alone, the cell goes on from step to step."""

    def __init__(self):
        super().__init__()
        self.given, self.kept, self.head = nn.Linear(4, 24), nn.Linear(6, 24), nn.Linear(6, 3)

    def forward(self, x):
        hidden = cell = self.given(x[:, 0])[:, :6].tanh()
        for step in range(4):
            entry, leaving, update, out = (self.given(x[:, step]) + self.kept(hidden)).chunk(4, 1)
            cell = leaving.sigmoid() * cell + entry.sigmoid() * update.tanh()
            hidden = out.sigmoid() * cell.tanh()
        return self.head(hidden)


class Layers(nn.Module):
    """nn.LSTM, whose last cell is returned too."""

    def __init__(self, returned: bool):
        super().__init__()
        self.cells, self.head, self.returned = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3), returned

    def forward(self, x):
        made, (_, cell) = self.cells(x)
        return (self.head(made), cell) if self.returned else self.head(made)


class Tokens(nn.Module):
    """A class token in front of others, and positions added, as in vision transformers."""

    def __init__(self):
        super().__init__()
        self.patches, self.blocks, self.norm = nn.Linear(8, 16), Block(), nn.LayerNorm(16)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16) / 50), nn.Parameter(torch.randn(1, 7, 16) / 50)

    def forward(self, x):
        joined = torch.cat([self.token.expand(x.shape[0], -1, -1), self.patches(x)], 1)
        return self.norm(self.blocks(joined + self.positions))


def residual() -> nn.Module:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x):
            x = x + self.first(x).relu()
            return self.head(x + self.second(x))

    return Net()


def found(net: nn.Module, example: torch.Tensor) -> tuple[str, ...]:
    graph = fb.fold(fb.capture(net.eval(), example)).graph
    inner = inner_values(graph)
    return tuple(node.name for node in graph.everything if node.name in inner)


def test_scores_and_residual_sums_are_inner_and_operands_of_products_are_not() -> None:
    torch.manual_seed(0)
    assert found(Reader(), torch.randn(4, 7, 8)) == (
        "first.matmul", "first.div", "first.mul", "first.add", "first.add#2", "second.matmul", "second.div",
        "second.mul", "second.add", "second.add#2")


def test_a_sum_that_a_convolution_reads_is_not_inner() -> None:
    assert found(residual(), torch.randn(4, 3, 8, 8)) == ()


def test_what_is_returned_is_inner_where_it_is_returned_as_numbers() -> None:
    model = fb.fold(fb.capture(Block().eval(), torch.randn(4, 7, 16)))  # its last sum is what it returns
    assert str(fb.plan(model, WIDE_SUMS).sites["add#2"].spec).startswith("int12 ")
    codes = fb.plan(model, WIDE_SUMS.model_copy(update={"outputs": "quantized"}))
    assert str(codes.sites["add#2"].spec).startswith("uint8 ") and str(codes.sites["add"].spec).startswith("int12 ")


def test_the_cell_is_inner_and_the_gates_are_not() -> None:
    torch.manual_seed(0)
    assert found(Cell(), torch.randn(4, 4, 4)) == (
        "mul", "mul#2", "add#2", "mul#4", "mul#5", "add#4", "mul#7", "mul#8", "add#6")
    layers = found(Layers(False), torch.randn(4, 5, 4))
    assert [name.rpartition(".")[2] for name in layers] == ["kept", "new", "cell"]
    assert found(Layers(True), torch.randn(4, 5, 4)) == layers, "returned or not"


@pytest.mark.parametrize(("net", "shape", "count"), [
    (Reader(), (32, 7, 8), 10), (Reader(norm=nn.RMSNorm, division=False), (32, 7, 8), 8), (Cell(), (64, 4, 4), 9),
    (Layers(False), (64, 9, 4), 3), (Tokens(), (32, 6, 8), 7), (Block(), (32, 7, 16), 5),
    (Layers(True), (64, 9, 4), 3)],
    ids=["attention", "RMS norm", "LSTM by hand", "nn.LSTM", "class token", "returned", "nn.LSTM and its cell"])
def test_steps_are_finer_and_every_engine_has_the_same_codes(net, shape, count) -> None:
    torch.manual_seed(1)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.3 * parameter.shape[1] ** -0.5)
    x = torch.randn(shape)
    program, narrow = (fb.quantize(net.eval(), x, [x], recipe=recipe).program for recipe in (WIDE_SUMS, "w8a8"))
    wide = [node.name for node in program.everything if program.is_wide(node.name) and node.name in narrow.by_name
            and isinstance(node, op.MatMul | op.Add | op.Mul | op.Table | op.Concat)]
    assert len(wide) == count and not any(map(narrow.is_wide, narrow.values))
    for name in wide:
        finer = narrow.encoding(name).scale / program.encoding(name).scale
        assert 12 < finer < 21, f"{name}: 4095 / 255, and numbers that 8 bits have made a little others"
    assert not differences(program, {program.inputs[0]: x.numpy()})


def test_rules_stand_above_and_inner_values_may_stay_float() -> None:
    torch.manual_seed(2)
    model = fb.fold(fb.capture(Reader().eval(), torch.randn(4, 7, 8)))
    narrow = fb.plan(model, fb.Recipe.model_validate(WIDE_SUMS.model_dump() | {
        "rules": [{"op": "add", "activations": {"format": "uint6", "range": "mse"}}]}))
    assert str(narrow.sites["first.add"].spec) == "uint6 per tensor, asymmetric, mse"
    assert str(narrow.sites["first.matmul"].spec) == "int12 per tensor, asymmetric, minmax"
    assert narrow.sites["first.matmul"].because == "inner"
    left = fb.plan(model, WIDE_SUMS.model_copy(update={"inner": "float"}))
    assert "first.add" not in left.sites and "first.query" in left.sites


def test_twelve_bits_where_a_product_reads_them_are_refused_by_name() -> None:
    torch.manual_seed(3)
    net, x = residual().eval(), torch.randn(4, 3, 8, 8)
    recipe = fb.Recipe.model_validate(fb.recipe("w8a8").model_dump() | {
        "rules": [{"op": "add", "activations": {"format": "int12"}}]})
    sim = fb.calibrate(model := fb.fold(fb.capture(net, x)), fb.plan(model, recipe), [x])
    with pytest.raises(LoweringError, match=r"'add' has int12 activations.*unsigned ones of at most 8 bits"):
        lower(sim)


def test_a_program_whose_product_reads_wide_codes_is_none() -> None:
    with pytest.raises(ProgramError, match=r"'x', which has codes of 12 bits, and under .* Linear reads at most 8"):
        as_program(Example(op.Linear("y", "x", weight((4, 5)), None, 0, 255), {"x": Value((None, 5), WIDE)},
                           Value((None, 4), Y)))
    with pytest.raises(ProgramError, match="'y' has codes of 12 bits, and profile tensorrt takes at most 8"):
        as_program(Example(op.Add("y", "a", "b", -9, 9), {"a": Value((None, 5), X), "b": Value((None, 5), X)},
                           Value((None, 5), WIDE), {}, "tensorrt"))
