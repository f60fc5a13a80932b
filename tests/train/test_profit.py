"""DuQ and PROFIT beside slow implementations of their formulas, number by number."""

import math

import pytest
import torch
from quantizers import activation_quantizer, weight_quantizer
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import EncodingError, TrainingError
from fewbits.fold.fold import fold
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.simulation import SimulationVisitor
from fewbits.train.duq import inverse_softplus
from fewbits.train.fit import fit
from fewbits.train.profit import activation_instability, freeze, least_stable, normal_divergence
from fewbits.train.registry import trainable


def softplus(rho):
    return math.log1p(math.exp(rho))


def slow_weight(w, bound, reach, steps):
    """(number, d/dw, d/dbound, d/dreach) of one weight, bound and reach before the softplus; rounding's own gradient is
    that of the identity."""
    a, c = softplus(bound), softplus(reach)
    slopes = [1 / (1 + math.exp(-rho)) for rho in (bound, reach)]
    unit = min(max(w / a, -1.0), 1.0)
    code = round(unit * steps)  # ties to even
    inside = abs(w / a) < 1
    return (c * code / steps, c / a * inside, -c * w / a**2 * slopes[0] * inside, code / steps * slopes[1])


def slow_activation(x, bound, below, steps):
    """(number, d/dx, d/dbound)"""
    a = softplus(bound)
    zero = min(max(round(below * steps / a), 0), steps - 1)
    unit = min(max(x / a, -zero / steps), 1 - zero / steps)
    code = round(unit * steps)
    inside = -zero / steps < x / a < 1 - zero / steps
    slope = 1 / (1 + math.exp(-bound))
    return a * code / steps, float(inside), (code / steps - (x / a if inside else 0.0)) * slope


def part_of(slow, part):
    return torch.tensor([[each[part] for each in row] for row in slow], dtype=torch.float64)


def test_by_hand():
    """Two bits: n = 1. a = c = 2: 1.1 is nearer to 2 than to 0, 0.9 nearer to 0, and 3 is cut to 2. Two bits unsigned:
    n = 3, a = 3: steps of 1, half to even: 0.5 is 0, 1.5 is 2; 7 is cut to 3."""
    rho = math.log(math.e**2 - 1)
    assert slow_weight(1.1, rho, rho, 1)[0] == pytest.approx(2)
    assert slow_weight(0.9, rho, rho, 1)[0] == 0
    assert slow_weight(-3.0, rho, rho, 1)[:2] == (pytest.approx(-2), 0)
    quantizer = weight_quantizer("duq-paper", "int2", torch.zeros(4, 1))
    quantizer.start(torch.full((4, 1), 2 / 0.9))
    assert quantizer(torch.tensor([[1.1], [0.9], [-3.0], [2.0]])).reshape(-1).tolist() == pytest.approx([2, 0, -2, 2])
    quantizer = activation_quantizer("duq", "uint2")
    quantizer.started.fill_(True)
    quantizer._begin(torch.tensor(3.0))
    x = torch.tensor([[0.4, 1.5001, 2.6, 7.0], [-1.0, 0.6, 1.4, 3.0]])
    torch.testing.assert_close(quantizer(x), torch.tensor([[0.0, 2, 3, 3], [0, 1, 1, 3]]))
    # h-swish: 3/8 at steps of 1/8 are three codes below 0
    quantizer = activation_quantizer("duq", "uint4", 0.375)
    quantizer.started.fill_(True)
    quantizer._begin(torch.tensor(15 / 8))
    x, wanted = torch.tensor([[-0.375, -1.0, 0.0, 5.0]]), torch.tensor([[-0.375, -0.375, 0, 1.5]])
    torch.testing.assert_close(quantizer(x), wanted)
    assert quantizer.zero_point.item() == 3


def test_the_inverse_of_softplus():
    a = torch.tensor([1e-6, 0.1, 1.0, 30.0, 500.0], dtype=torch.float64)
    torch.testing.assert_close(torch.nn.functional.softplus(inverse_softplus(a), threshold=1000), a)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_and_their_gradients(bits):
    weight = torch.cat([torch.randn(3, 8, generator=torch.Generator().manual_seed(bits)).double(),
                        torch.zeros(1, 8).double()])
    quantizer = weight_quantizer("duq-paper", f"int{bits}", weight).double()
    quantizer.start(weight)
    assert torch.nn.functional.softplus(quantizer.bound).item() == pytest.approx(0.9 * weight.abs().max().item())
    with torch.no_grad():
        quantizer.reach.add_(0.3)
    upstream = torch.randn(4, 8, generator=torch.Generator().manual_seed(9)).double()
    shadow = weight.clone().requires_grad_()
    y = quantizer(shadow)
    (y * upstream).sum().backward()
    slow = [[slow_weight(w, quantizer.bound.item(), quantizer.reach.item(), 2 ** (bits - 1) - 1) for w in row]
            for row in weight.tolist()]
    number, of_w, of_bound, of_reach = (part_of(slow, part) for part in range(4))
    torch.testing.assert_close(y.detach(), number)
    torch.testing.assert_close(shadow.grad, of_w * upstream)
    torch.testing.assert_close(quantizer.bound.grad, (of_bound * upstream).sum())
    torch.testing.assert_close(quantizer.reach.grad, (of_reach * upstream).sum())
    stored = quantizer.integers(weight.numpy())
    read = torch.from_numpy(stored.codes * float(stored.encoding.scale))
    torch.testing.assert_close(read, number, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("below", [0.0, 0.375])
def test_activations_and_their_gradients(below):
    x = torch.cat([3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 4)]).double()
    quantizer = activation_quantizer("duq-paper", "uint4", below).double()
    quantizer(x)  # starts
    reach = torch.nn.functional.softplus(quantizer.bound).item()
    assert reach == pytest.approx(torch.quantile(x, 0.95).item() + below)
    given = x.clone().requires_grad_()
    upstream = torch.randn(7, 4, generator=torch.Generator().manual_seed(9)).double()
    (quantizer(given) * upstream).sum().backward()
    slow = [[slow_activation(each, quantizer.bound.item(), below, 15) for each in row] for row in x.tolist()]
    number, of_x, of_bound = (part_of(slow, part) for part in range(3))
    torch.testing.assert_close(quantizer(x).detach(), number)
    torch.testing.assert_close(given.grad, of_x * upstream)
    torch.testing.assert_close(quantizer.bound.grad, (of_bound * upstream).sum())


@pytest.mark.parametrize("below", [0.0, 0.375])
def test_it_starts_at_the_least_squared_error(below):
    """No bound of a fine grid does better by more than a thousandth, and the paper's does worse."""
    draws = torch.randn(400, 4, generator=torch.Generator().manual_seed(2))

    def error(quantizer, x, bound):
        with torch.no_grad():
            for parameter in quantizer.parameters():
                parameter.copy_(inverse_softplus(bound))
            return float((quantizer(x) - x).double().square().sum())

    for make, x in ((lambda name: weight_quantizer(name, "int3", draws), draws),
                    (lambda name: activation_quantizer(name, "uint3", below), draws.clamp(min=-below))):
        begun = {}
        for name in ("duq", "duq-paper"):
            quantizer = make(name)
            quantizer.start(x)
            begun[name] = torch.nn.functional.softplus(quantizer.bound).detach()
            quantizer.started.fill_(True)
        least = min(error(quantizer, x, bound) for bound in torch.linspace(0.2, 4, 400))
        assert error(quantizer, x, begun["duq"]) <= 1.001 * least
        assert error(quantizer, x, begun["duq-paper"]) > 1.001 * least


def test_what_duq_does_not_take():
    with pytest.raises(EncodingError, match="int2 to int8 with one scale per tensor"):
        weight_quantizer("duq", "int4", torch.zeros(3, 3), per_channel=True)
    with pytest.raises(EncodingError, match="use uint4"):
        activation_quantizer("duq", "int4")


def test_the_divergence_of_normals():
    """By hand: equal ones 0; a mean moved by σ: ½; a variance doubled: (ln ½ + 2 − 1) / 2. And by integrating."""
    one, zero = torch.ones(()), torch.zeros(())
    assert normal_divergence(zero, one, zero, one) == 0
    assert normal_divergence(zero, one, one, one) == 0.5
    assert normal_divergence(zero, one, zero, 2 * one).item() == pytest.approx((math.log(0.5) + 1) / 2)
    grid = torch.linspace(-30, 30, 200_001, dtype=torch.float64)

    def density(mean, variance):
        return torch.exp(-(grid - mean) ** 2 / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    later, before = density(0.7, 1.7), density(-0.4, 2.5)
    integral = torch.trapezoid(later * torch.log(later / before), grid)
    found = normal_divergence(*(torch.tensor(number).double() for number in (-0.4, 2.5, 0.7, 1.7)))
    assert found.item() == pytest.approx(integral.item(), rel=1e-6)


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=4)
        self.pointwise, self.norm, self.head = nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.depthwise(self.stem(x).relu()).relu()
        return self.head(self.norm(self.pointwise(x)).relu().mean((2, 3)))


@pytest.fixture
def learning():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = Depthwise().eval(), torch.randn(32, 2, 8, 8)
    model = fold(capture(net, x), norms="keep")
    return trainable(calibrate(model, plan(model, "duq-w4a4"), [x])), x, torch.arange(32) % 3


def outputs(simulation, x, layer):
    """What a layer computes in training, by the layer's own call."""
    found = {}

    class Seen(SimulationVisitor):
        def value(self, name, value):
            if name == layer:
                found[layer] = value.clone()
            return super().value(name, value)

    with torch.no_grad():
        simulation.run(simulation.model.named_inputs((x,), {}), Seen(simulation))
    return found[layer]


def test_instability_is_what_two_runs_around_a_step_say(learning):
    simulation, x, y = learning
    before = simulation.copy().train()
    found = activation_instability(simulation, [(x, y)])
    assert set(found) == {"stem.weight", "depthwise.weight", "pointwise.weight", "head.weight"}
    assert all(value >= 0 for value in found.values())
    assert max(found.values()) > 0
    simulation.train()
    for name in ("depthwise", "head"):
        slow, old, new = [], outputs(before, x, name), outputs(simulation, x, name)
        for channel in range(old.shape[1]):
            a, b = old[:, channel].double(), new[:, channel].double()
            v, w = a.var(correction=0), b.var(correction=0)
            slow.append(0.5 * (math.log(v / w) + (w + (b.mean() - a.mean()) ** 2) / v - 1))
        assert found[f"{name}.weight"] == pytest.approx(float(sum(slow) / len(slow)), rel=1e-2, abs=1e-7)
    with pytest.raises(TrainingError, match="give one or more"):
        activation_instability(simulation, [])


def test_the_least_stable_are_frozen(learning):
    simulation, x, y = learning
    assert least_stable({"a": 1.0, "b": 3.0, "c": 3.0, "d": 0.5, "e": 2.0, "f": 0.1}, 1 / 3) == ["b", "c"]
    assert least_stable({"a": 1.0, "b": 2.0}, 1 / 3) == []
    fit(simulation, [(x, y)], epochs=1, quiet=True)
    frozen = freeze(simulation, ["depthwise.weight"])
    kept = frozen.model.tensor("depthwise.weight").clone(), frozen.quantizer("depthwise.weight").bound.clone()
    other = frozen.model.tensor("pointwise.weight").clone()
    fit(frozen, [(x, y)], epochs=3, quiet=True)
    assert torch.equal(frozen.model.tensor("depthwise.weight"), kept[0])
    assert torch.equal(frozen.quantizer("depthwise.weight").bound, kept[1])
    assert not torch.equal(frozen.model.tensor("pointwise.weight"), other)
