"""What a recipe leaves in float stays as it is: plans, weight-only simulations, refusals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import CalibrationError, RecipeError
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, recipe

TOP = """
version: 1
weights: {format: int8, symmetric: true, block: channel, range: minmax}
activations: {format: uint8, symmetric: false, block: tensor, range: minmax}
"""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.mid, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(16, 256), nn.Linear(256, 2)

    def forward(self, x):
        y = self.mid(F.relu(self.conv(x)).flatten(2).mean(1))
        return self.head(F.relu(y + 1.0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return fold(capture(Net(), torch.randn(2, 1, 4, 4)))


def written(text: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load(TOP + text))


def by_hand(weight: torch.Tensor, largest_code: int, group: int) -> torch.Tensor:
    """Weights on their grid, one loop per group of the flattened input axes."""
    rows = weight.detach().numpy().reshape(len(weight), -1)
    out = np.empty_like(rows)
    for row in range(len(rows)):
        for start in range(0, rows.shape[1], group):
            part = rows[row, start:start + group]
            scale = np.float32(np.float64(np.abs(part).max()) / largest_code)
            codes = np.clip(np.rint(part / scale), -largest_code, largest_code)
            out[row, start:start + group] = codes.astype(np.float32) * scale
    return torch.from_numpy(out.reshape(weight.shape))


def test_w8_needs_no_data_and_quantizes_weights_only(model):
    resolved = plan(model, "w8")
    assert {site.kind for site in resolved.sites.values()} == {"weight"}
    assert not resolved.needs_data
    assert resolved.steps["conv"].treatment == "float"
    simulation = calibrate(model, resolved)
    net = Net()
    net.load_state_dict({name: by_hand(tensor, 127, 10**6) if name.endswith("weight") else tensor
                         for name, tensor in ((n, model.tensor(n).detach()) for n in net.state_dict())})
    x = torch.randn(5, 1, 4, 4)
    assert torch.equal(simulation(x), net(x))
    assert not torch.equal(simulation(x), model(x))


def test_w4_g128_has_a_scale_per_128_inputs():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(256, 8))
    simulation = calibrate(captured := fold(capture(net, torch.randn(2, 256))), plan(captured, "w4-g128"))
    weight = net[0].weight
    assert simulation.quantizer("0.weight").encoding.scale.shape == (8, 2)
    x = torch.randn(3, 256)
    assert torch.equal(simulation(x), F.linear(x, by_hand(weight, 7, 128), net[0].bias))


def test_a_rule_leaves_one_layer_in_float_and_a_later_one_takes_it_back(model):
    resolved = plan(model, written("rules:\n  - {module: mid, weights: float}\n"))
    assert "mid.weight" not in resolved.sites
    assert "mid.bias" not in resolved.sites, "its sums are no integers"
    assert resolved.steps["mid"].treatment == "float"
    assert resolved.steps["conv"].treatment == resolved.steps["head"].treatment == "integer"
    again = written("rules:\n  - {module: mid, weights: float}\n  - {op: linear, weights: {format: int4}}\n")
    assert str(plan(model, again).sites["mid.weight"].spec).startswith("int4")


def test_a_format_over_float_starts_from_the_plain_one(model):
    text = {"version": 1, "weights": "float", "activations": "float", "inputs": {"format": "uint5"},
            "rules": [{"module": "mid", "weights": {"format": "int4"}}]}
    sites = plan(model, Recipe.model_validate(text)).sites
    assert {name: str(site.spec.format) for name, site in sites.items() if site.spec} == {
        "x": "uint5", "mid.weight": "int4"}


def test_keep_float_leaves_a_layer_as_it_is(model):
    resolved = plan(model, written("rules: [{module: mid, keep_float: true}]"))
    assert not {"mid", "mid.weight", "mid.bias"} & set(resolved.sites)
    floats = [step.node for step in resolved.steps.values() if step.treatment == "float"]
    assert floats == ["mid", "add", "relu#2"], "the layer, and what works on its result before the next quantizer"
    assert resolved.steps["head"].treatment == resolved.steps["conv"].treatment == "integer"


def test_what_makes_floats_of_codes_is_float(model):
    resolved = plan(model, written("rules: [{op: mean, activations: float}]"))
    assert [step.node for step in resolved.steps.values() if step.treatment == "float"] == ["mean", "mid"]
    resolved = plan(model, written("rules: [{module: mid, activations: float}]"))
    floats = [step.node for step in resolved.steps.values() if step.treatment == "float"]
    assert floats == ["add", "relu#2"], "the layer itself sums integers"


def test_keeping_what_only_moves_codes_changes_nothing(model):
    kept = plan(model, written("rules: [{op: reshape, keep_float: true}]"))
    assert str(kept) == str(plan(model, "w8a8"))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.rows.weight

    def forward(self, tokens):
        return self.head(torch.tanh(self.rows(tokens)))


def test_weight_only_stores_the_rows_of_an_embedding_too():
    torch.manual_seed(0)
    tokens, net = torch.arange(5).repeat(2, 1), Words()
    model = fold(capture(net, tokens))
    resolved = plan(model, "w8")
    assert resolved.steps["rows"].coded == ("weight",)
    weight = by_hand(net.rows.weight, 127, 4)
    assert torch.equal(calibrate(model, resolved)(tokens), F.linear(torch.tanh(weight[tokens]), weight))
    assert plan(model, "w8a8").steps["rows"].coded == (), "its rows are stored in the codes of its result"
    assert plan(model, written("rules: [{op: embedding, keep_float: true}]")).steps["rows"].coded == ()


def test_groups_that_do_not_divide_are_all_named(model):
    told = r"conv.weight \[3×1×3×3\] by \(1, 128\), mid.weight \[256×16\] by \(1, 128\); give them a rule"
    with pytest.raises(RecipeError, match=told):
        plan(model, "w4-g128")


def test_weight_only_trains(model):
    simulation = calibrate(model, plan(model, "w8")).train()
    simulation(torch.randn(2, 1, 4, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in simulation.parameters())


def test_activations_in_codes_still_need_data(model):
    with pytest.raises(CalibrationError, match="no calibration batches"):
        calibrate(model, plan(model, "w8a8"))


def test_a_word_that_is_not_float_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("version: 1\nweights: {format: int8}\nactivations: flaot\n")
    with pytest.raises(RecipeError, match="activations: 'flaot' is neither `float` nor keys"):
        recipe(path)


def test_one_weight_used_twice_cannot_be_both():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            return F.linear(F.relu(self.a(x)), self.a.weight)

    captured = fold(capture(Tied(), torch.randn(2, 4)))
    second = [node.name for node in captured.graph.nodes if node.name != "a"][-1]
    with pytest.raises(RecipeError, match="two things"):
        plan(captured, written(f"rules: [{{module: {second}, weights: float}}]"))
