"""Recipes and plans: what they say, where quantizers stand, and one sentence for each mistake."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import RecipeError, UnsupportedError
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.presets import presets
from fewbits.quant.recipe import Recipe, Rule, recipe


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.again, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

    def forward(self, x):
        y = self.pool(self.relu(self.conv(x)))
        y = F.relu(self.again(y) + y)
        return self.head(y.mean((2, 3)))


@pytest.fixture
def model():
    return fold(capture(Net(), torch.randn(2, 1, 4, 4)))


def test_where_quantizers_stand(model):
    resolved = plan(model, "w8a8")
    assert list(resolved.sites) == [
        "x", "conv.weight", "conv.bias", "relu", "again.weight", "again.bias", "again", "relu#2", "mean",
        "head.weight", "head.bias", "head"]
    assert resolved.grid("conv") == "relu", "no quantizer between a convolution and its ReLU"
    assert resolved.grid("pool") == "relu", "a max pool passes codes on"
    assert resolved.sites["head"].kind == "accumulator"
    assert resolved.steps["pool"].source
    assert "head.weight (weight): int8 per channel" in str(resolved)


def test_rules_and_the_later_one_wins(model):
    text = """
version: 1
weights: {format: int8, symmetric: true, block: channel, range: minmax}
activations: {format: uint8, symmetric: false, block: tensor, range: minmax}
outputs: quantized
rules:
  - {op: conv, weights: {format: int4}}
  - {module: "aga*", weights: {format: int6}, activations: {format: uint5}}
  - {module: "nothing.*", weights: {format: int2}, optional: true}
"""
    resolved = plan(model, Recipe.model_validate(yaml.safe_load(text)))
    formats = {name: str(site.spec.format) for name, site in resolved.sites.items() if site.spec}
    assert formats["conv.weight"] == "int4"
    assert formats["again.weight"] == "int6"
    assert formats["again"] == "uint5"
    assert formats["head"] == "uint8"
    assert resolved.sites["again.weight"].because == "rule 2 {module: aga*}"


def test_presets_read():
    assert {"w8a8", "w8a8-per-tensor"} <= set(presets())
    for name in presets():
        assert recipe(name).version == 1


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


GOOD = "version: 1\nweights: {format: int8}\nactivations: {format: uint8}\n"


def test_a_rule_says_what_its_layers_take(model):
    """The value that holds what the layer takes, also where its codes were passed on; the network's input likewise."""
    text = {"version": 1, "weights": {"format": "int2"}, "activations": {"format": "uint2"},
            "rules": [{"layer": "last", "inputs": {"format": "uint8"}},
                      {"module": "again", "inputs": {"format": "uint5"}},
                      {"layer": "first", "inputs": {"format": "uint7"}}]}
    sites = plan(model, Recipe.model_validate(text)).sites
    assert {name: str(site.spec.format) for name, site in sites.items() if site.spec and "weight" not in name} == {
        "x": "uint7", "relu": "uint5", "again": "uint2", "relu#2": "uint2", "mean": "uint8"}
    assert "rule 1 {layer: last}" in sites["mean"].because


@pytest.mark.parametrize(("text", "sentence"), [
    (GOOD + "wieghts: {}\n", "unknown key 'wieghts'"),
    (GOOD.replace("format: int8", "fromat: int8"), r"unknown key 'weights.fromat'"),
    (GOOD.replace("int8}", "int99}"), "integers have 1 to 16 bits"),
    (GOOD.replace("uint8", "smallish"), "no format is called 'smallish'"),
    (GOOD.replace("int8}", "int8, block: row}"), "no block is called 'row'"),
    (GOOD.replace("int8}", "int8, range: guess}"), "no range rule is called 'guess'"),
    (GOOD.replace("version: 1", "version: 2"), "version"),
    (GOOD + "rules: [{op: conv}]\n", "a rule needs `weights`"),
    (GOOD + "rules: [{weights: {format: int4}}]\n", "a rule needs `op`, `module`"),
    ("weights: [", "is no YAML"),
    ("- 1\n", "recipe"),
    ("", "version"),
])
def test_mistakes_in_a_recipe(tmp_path, text, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        recipe(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_unknown_recipe():
    with pytest.raises(RecipeError, match=r"'w9a9', and no file: did you mean .*w8a8.*\? docs/recipes.md lists"):
        recipe("w9a9")


@pytest.mark.parametrize(("rule", "sentence"), [
    ('{module: "hedd", weights: {format: int4}}', "rule 1 {module: hedd} matches nothing"),
    ("{op: convolution, weights: {format: int4}}", "no operator is called 'convolution'"),
])
def test_rules_that_do_not_fit_the_model(model, tmp_path, rule, sentence):
    with pytest.raises(RecipeError, match=sentence):
        plan(model, write(tmp_path, GOOD + f"rules: [{rule}]\n"))


class Unsupported(nn.Module):
    def forward(self, x):
        y = torch.linalg.norm(x, dim=1, keepdim=True)
        z = torch.cumsum(x, 1)
        return torch.add(z, y, alpha=2)


def test_unsupported_operators_come_all_at_once_with_their_lines():
    model = fold(capture(Unsupported(), torch.randn(2, 3)))
    with pytest.raises(UnsupportedError) as caught:
        plan(model, "w8a8")
    message = str(caught.value)
    assert message.startswith("2 operators cannot become integers")
    for word in ("linalg", "cumsum"):
        assert word in message
    assert message.count("test_plan.py:") == 2


def test_batch_norm_behind_no_product_has_a_grid_of_its_own():
    model = capture(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)), torch.randn(2, 1, 3, 3))
    decided = plan(model, "w8a8")
    assert decided.sites["2"].kind == "activation"
    assert (decided.steps["1"].grid, decided.steps["2"].grid) == ("1", "2")


def test_live_batch_norm_shares_the_site_of_what_ends_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))
    made = plan(capture(net, torch.randn(2, 1, 3, 3)), "w8a8")
    assert {"0", "1"}.isdisjoint(made.sites)
    assert made.grid("0") == made.grid("1") == "2"
    assert made.sites["0.bias"].because == "batch norm's offset"


def test_one_weight_cannot_be_two_things(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = fold(capture(Twice(), torch.randn(2, 3)))
    path = write(tmp_path, GOOD + 'rules: [{module: "b", weights: {format: int4}}]\n')
    with pytest.raises(RecipeError, match="is used twice"):
        plan(model, path)
    plan(model, "w8a8")


def test_groups_that_do_not_divide_are_refused_with_every_tensor_that_has_them():
    net = nn.Sequential(nn.Linear(96, 40), nn.ReLU(), nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 3))
    model = fold(capture(net.eval(), torch.randn(2, 96)))
    wanted = Recipe.model_validate({"version": 1, "weights": {"format": "int4", "symmetric": True, "block": [1, 32]},
                                    "activations": "float"})
    with pytest.raises(RecipeError, match=r"into their blocks: 2.weight \[64×40\] by \(1, 32\); give") as told:
        plan(model, wanted)
    assert "0.weight" not in str(told.value) and "4.weight" not in str(told.value)
    wanted = wanted.model_copy(update={"rules": [Rule.model_validate({"module": "2", "weights": {"block": [1, 20]}})]})
    sites = calibrate(model, plan(model, wanted), []).quantizers()
    assert {site.site: site.encoding.scale.shape for site in sites} == {
        "0.weight": (40, 3), "2.weight": (64, 2), "4.weight": (3, 2)}
