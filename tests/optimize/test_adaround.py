"""AdaRound: the golden formulas, and that it chooses better codes than rounding to nearest."""

import numpy as np
import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.optimize.adaround import Schedule, adaround, beta_at, initial, raised, rectified_sigmoid, undecided
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def test_golden_rectified_sigmoid(golden):
    values = golden("adaround")
    np.testing.assert_allclose(initial(doubles(values["init"]["frac"])), values["init"]["V"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(rectified_sigmoid(doubles(values["h"]["V"])), values["h"]["h"], rtol=1e-6)
    for beta, wanted in values["freg"].items():
        got = undecided(rectified_sigmoid(doubles(values["h"]["V"])), float(beta))
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-12)


def test_golden_schedule(golden):
    for iteration, wanted in golden("adaround")["beta_schedule_aimet_10000"].items():
        assert beta_at(int(iteration), 10_000) == pytest.approx(wanted, rel=1e-6)
    assert beta_at(0, 10_000) == 20


def test_golden_soft_quantization(golden):
    example = golden("adaround")["soft_quantize_example"]
    steps = doubles(example["W"]) / example["s"]
    floor = steps.floor()
    assert floor.tolist() == example["floor"]
    np.testing.assert_allclose(initial(steps - floor), example["V_init"], rtol=1e-6, atol=1e-9)
    v = doubles(example["V"])
    low, high = (torch.tensor(example[end], dtype=torch.float64) for end in "np")
    soft = raised(floor, rectified_sigmoid(v), low, high)
    np.testing.assert_allclose(soft * example["s"], example["W_soft"], rtol=1e-6, atol=1e-12)
    hard = raised(floor, rectified_sigmoid(v) >= 0.5, low, high)
    assert hard.tolist() == example["q_hard"]
    assert float(undecided(rectified_sigmoid(v), 2).sum()) == pytest.approx(example["freg_sum_beta2"], rel=1e-6)


def simulation(groups=1, recipe="w4a8"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=groups),
                        nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
    batches = [torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    model = fold(capture(net, batches[0][:2]))
    return calibrate(model, plan(model, recipe), batches), batches


def output_error(sim, batches):
    with torch.no_grad():
        return sum(float((sim(x) - sim.reference(x)).square().sum()) for x in batches)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_nearer_to_the_float_network_than_nearest_rounding(groups):
    sim, batches = simulation(groups)
    repaired = adaround(sim, batches, schedule=Schedule(iterations=150, rows=256))
    assert output_error(repaired, batches) < 0.6 * output_error(sim, batches)


def test_each_weight_goes_up_or_down_and_lowering_gives_these_codes():
    sim, batches = simulation()
    repaired = adaround(sim, batches, schedule=Schedule(iterations=150, rows=256))
    program = lower(repaired)
    chosen = 0
    for node in program.dot_products:
        name = next(n for n in sim.model.graph.nodes if sim.plan.grid(n.name) == node.name and "weight" in n.arguments)
        encoding = sim.quantizer(name["weight"].name).encoding
        original = sim.model.tensor(name["weight"].name).detach().numpy()
        steps = original / encoding.block.expand(encoding.scale, original.shape)
        codes = node.weight.codes
        clipped = [np.clip(f(steps), encoding.format.low, encoding.format.high) for f in (np.floor, np.ceil)]
        assert ((codes == clipped[0]) | (codes == clipped[1])).all()
        chosen += int((codes != encoding.encode(original).codes).sum())
        np.testing.assert_array_equal(repaired.model.tensor(name["weight"].name).detach().numpy(),
                                      node.weight.dequantize())
    assert chosen > 0


def test_codes_survive_being_written_back():
    sim, batches = simulation(recipe="w8a8")
    repaired = adaround(sim, batches, schedule=Schedule(iterations=40, rows=128))
    for quantizer in repaired.quantizers():
        if quantizer.site.endswith("weight"):
            weight = repaired.model.tensor(quantizer.site).detach().numpy()
            data = quantizer.encoding.encode(weight)
            np.testing.assert_array_equal(data.dequantize(), weight)
