"""Re-estimated batch norms: moments of what they read in few bits, whatever else training would do."""

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import CalibrationError, RepairError
from fewbits.fold.fold import fold
from fewbits.optimize.batch_norm import reestimate_batch_norm
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.simulation import SimulationVisitor
from fewbits.testing.compared import bytes_of


def simulation(*layers, norms="keep"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *layers, nn.Conv2d(4, 4, 3),
                        nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()
    model = fold(capture(net, batches()[0]), norms=norms)
    return calibrate(model, plan(model, "qat-w8a8" if norms == "keep" else "w8a8"), batches())


def batches():
    return [torch.randn(16, 1, 6, 6, generator=torch.Generator().manual_seed(i)) + 1 for i in range(3)]


def test_dropout_drops_nothing_and_draws_nothing():
    plain, dropping = simulation(), simulation(nn.Dropout(0.5))
    state = torch.get_rng_state()
    one, other = (reestimate_batch_norm(sim, batches()).model for sim in (plain, dropping))
    assert torch.get_rng_state().equal(state)
    for name, moved in (("1", "1"), ("4", "5")):
        for statistic in ("running_mean", "running_var"):
            assert one.tensor(f"{name}.{statistic}").equal(other.tensor(f"{moved}.{statistic}"))
    assert not one.tensor("4.running_mean").equal(plain.model.tensor("4.running_mean"))


def test_a_network_at_few_bits_reads_what_its_norms_say():
    """As inference reads it; what it comes to before and after, with norms that quantization has put out of place."""
    sim = simulation()
    for name in ("1", "4"):  # statistics of other data
        sim.model.tensor(f"{name}.running_mean").add_(0.5)
        sim.model.tensor(f"{name}.running_var").mul_(3)

    def astray(sim):
        read, norm = [], next(node for node in sim.model.graph.nodes if "4.running_mean" in node.params)

        class Reading(SimulationVisitor):
            def value(self, name, value):
                value = super().value(name, value)
                if name == norm["input"].name:
                    read.append(value)
                return value

        with torch.no_grad():
            for x in batches():
                sim.run(sim.model.named_inputs((x,), {}), Reading(sim))
        return float((torch.cat(read).mean((0, 2, 3)) - sim.model.tensor("4.running_mean")).abs().max())

    before = astray(sim)
    after = astray(reestimate_batch_norm(sim, batches()))
    assert before > 0.4
    assert after < 0.1 * before


def test_labelled_batches_and_bad_input():
    sim = simulation()
    labelled = [(x, torch.zeros(len(x))) for x in batches()]
    assert bytes_of(reestimate_batch_norm(sim, labelled, batch_to_inputs=lambda batch: batch[0])) == bytes_of(
        reestimate_batch_norm(sim, batches()))
    with pytest.raises(CalibrationError, match="no batches"):
        reestimate_batch_norm(sim, [])
    with pytest.raises(RepairError, match="folded before"):
        reestimate_batch_norm(simulation(norms="fold"), batches())
