"""The loop: the same seed gives the same bytes, through a kill too; bad data and bad checkpoints are refused."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import CollapseWarning, DataError, FileError, TrainingError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.optimize.batch_norm import reestimate_batch_norm
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import SimulationVisitor
from fewbits.storage.checkpoint import write_checkpoint
from fewbits.storage.container import parse
from fewbits.testing import differences
from fewbits.testing.compared import bytes_of
from fewbits.train import kept
from fewbits.train.distillation import Distillation
from fewbits.train.fit import Adam, Nesterov, fit
from fewbits.train.freeze import freeze_batch_norm
from fewbits.train.progressive import narrow
from fewbits.train.registry import trainable

SCRIPT = """
import sys, time, torch
from torch import nn
from fewbits.train.fit import Adam, fit

class Slow(list):
    def __iter__(self):
        for item in list.__iter__(self):
            time.sleep(float(sys.argv[2]))
            yield item

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 2))
x, y = torch.randn(64, 4), torch.arange(64) % 2
batches = Slow((x[i:i + 8], y[i:i + 8]) for i in range(0, 64, 8))
fit(net, batches, epochs=3, optimizer=Adam(0.01), checkpoint=sys.argv[1], save_every=1, quiet=True)
print(torch.cat([p.flatten() for p in net.parameters()]).detach().numpy().tobytes().hex())
"""


def run_to_end(path):
    return subprocess.run([sys.executable, "-c", SCRIPT, str(path), "0"], capture_output=True, text=True, check=True,
                          env=os.environ).stdout


def test_a_kill_changes_no_byte(tmp_path):
    whole = run_to_end(tmp_path / "whole")
    path = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), "0.1"], stdout=subprocess.PIPE)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.25)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == b"", "it was to be killed half-way"
    document = parse(path.read_bytes()).tensors["fewbits.checkpoint"]
    assert dict(json.loads(document.tobytes())["state"]["dict"])["step"] < 24
    assert run_to_end(path) == whole


def learner(scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
        x = torch.randn(12, 1, 6, 6) * scale
    model = fold(capture(net, x), norms="keep")
    return trainable(calibrate(model, plan(model, "lsq-w4a4"), [x])), net, [(x, torch.arange(12) % 3)]


def test_a_loss_that_is_not_finite_names_step_and_layer():
    simulation, _, batches = learner()
    with torch.no_grad():
        simulation.model.tensor("0.weight")[0, 0, 0, 0] = math.inf
    with pytest.raises(TrainingError, match=r"step 1 of epoch 1: parameter '0\.weight' holds NaN or Inf"):
        fit(simulation, batches, epochs=1, quiet=True)
    simulation, _, batches = learner()
    with torch.no_grad():
        simulation.model.tensor("1.running_var").fill_(1.0)
        simulation.model.tensor("1.weight").fill_(3e38)
    with pytest.raises(TrainingError, match=r"step 1 of epoch 1: the result of '(1|2|4)' is the first"):
        fit(simulation, batches, epochs=1, quiet=True)


def test_a_learned_range_that_comes_to_nothing_is_told_of(recwarn):
    simulation, _, batches = learner()
    fit(simulation, batches, epochs=2, optimizer=Adam(1e-3), quiet=True)
    assert not [warning for warning in recwarn if warning.category is CollapseWarning]
    simulation, _, batches = learner()
    with pytest.warns(CollapseWarning, match=r"after epoch 2 the learned range of '0.weight' and 2 more is 0"):
        fit(simulation, batches, epochs=5, optimizer=Adam(1.0), quiet=True)


def trained(path, *, recipe="lsq-w4a4", epochs=2, seed=0, rate=1e-3, shift=0.0, labels=0, teacher=False, loss=None):
    """The weights a training ends with; everything seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
                            nn.Linear(8, 3)).eval()
        x = torch.randn(12, 1, 6, 6)
        with torch.no_grad():
            net[0].weight.add_(shift)
    model = fold(capture(net, x), norms="keep")
    simulation = trainable(calibrate(model, plan(model, recipe), [x]))
    y = (torch.arange(12) + labels) % 3
    fit(simulation, [(x[:6], y[:6]), (x[6:], y[6:])], epochs=epochs, optimizer=Adam(rate), seed=seed, checkpoint=path,
        quiet=True, distillation=Distillation(net, share=0.5) if teacher else None, **({"loss": loss} if loss else {}))
    return bytes_of(simulation)


@pytest.mark.parametrize(("other", "words"), [
    ({"recipe": "lsq-w2a2"}, "another recipe"), ({"recipe": "pact-w4a4"}, "another recipe"),
    ({"shift": 1e-6}, "another start weights"), ({"rate": 0.1}, "another optimizer"), ({"labels": 1}, "other data"),
    ({"epochs": 3}, "another length"), ({"seed": 1}, "another seed"), ({"teacher": True}, "another teacher"),
    ({"loss": nn.functional.nll_loss}, "another loss"),
])
def test_the_checkpoint_of_another_training_is_refused(tmp_path, other, words):
    path = tmp_path / "checkpoint"
    right = trained(path)
    assert trained(path) == right == trained(None)
    before = path.read_bytes()
    with pytest.raises(FileError, match=words):
        trained(path, **other)
    assert path.read_bytes() == before


def test_old_foreign_and_damaged_checkpoints(tmp_path):
    path = tmp_path / "checkpoint"
    trained(path)
    good = path.read_bytes()
    torch.save({"what": "2 batches, 2 epochs, seed 0", "step": 1}, path)  # as fewbits wrote before
    old = path.read_bytes()
    for data in (old, good[:500], b"", good[:200] + bytes([good[200] ^ 1]) + good[201:]):
        path.write_bytes(data)
        with pytest.raises(FileError, match="remove it to begin anew"):
            trained(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileError, match="no regular file"):
        trained(path)


def adam(**group):
    """A change of the optimizer's state: of its only group, or of what it keeps of the first parameter."""
    def changed(state):
        kept, groups = state["optimizer"]["state"], state["optimizer"]["param_groups"]
        first = dict(kept[0])
        for name in list(group):
            if name in first:
                value = group.pop(name)
                first = {key: each for key, each in (first | {name: value}).items() if each is not None}
        return {"optimizer": {"state": {**kept, 0: first}, "param_groups": [groups[0] | group, *groups[1:]]}}

    return changed


def schedule(**other):
    return lambda state: {"schedule": state["schedule"] | other}


@pytest.mark.parametrize("change", [
    adam(exp_avg=None), adam(exp_avg_sq=None), adam(step=torch.tensor(-1e30)), adam(step=torch.tensor(99.0)),
    adam(step="x"), adam(eps="x"), adam(eps=2.0), adam(betas=[0.9]), adam(betas=[1.0, 0.9]), adam(lr=-1.0),
    adam(lr="x"), adam(more=1), adam(exp_avg=torch.tensor(1.0)), schedule(last_epoch=3), schedule(base_lrs=[1.0]),
    schedule(more=1), {"step": "x"}, {"step": 10**9}, {"step": True}, {"step": 3}, {"losses": None},
    {"losses": [0.1, None]}, {"total": 1}, {"random": torch.zeros(3)},
    {"random": torch.zeros_like(torch.get_rng_state())}, {"begun": [torch.zeros_like(torch.get_rng_state())]},
    {"begun": []}, {"net": {}}, {"optimizer": []},
    {"optimizer": {"state": {9: {}}}},
    {"optimizer": {"state": {0: {"exp_avg": torch.zeros(7)}}, "param_groups": []}}, {"data": "0" * 64},
])
def test_forged_states_with_right_hashes_are_refused_and_the_network_stays(tmp_path, monkeypatch, change):
    path = tmp_path / "checkpoint"
    trained(path)
    jobs, real = [], kept.read_checkpoint
    monkeypatch.setattr(kept, "read_checkpoint", lambda path, job: (jobs.append(job), real(path, job))[1])
    trained(path)
    state = real(path, jobs[0])
    change = change(state) if callable(change) else change
    for forged in (state | change, {**state, "net": {n: t * torch.nan if t.is_floating_point() else t
                                                     for n, t in state["net"].items()}}):
        write_checkpoint(path, jobs[0], forged)
        with pytest.raises(FileError, match="remove it to begin anew"):
            trained(path)


def test_a_loader_that_shuffles_by_torchs_own_chance_goes_on_in_its_order(tmp_path):
    class Stops(Exception):  # noqa: N818
        pass

    class Loader(list):
        stop = 99

        def __iter__(self):
            for number in torch.randperm(len(self)).tolist():
                Loader.stop -= 1
                if Loader.stop < 0:
                    raise Stops
                yield self[number]

    def learned(path):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 3))
            x, y = torch.randn(20, 3), torch.arange(20) % 3
        fit(net, Loader(zip(x.split(4), y.split(4), strict=True)), epochs=4, checkpoint=path, save_every=1, quiet=True)
        return bytes_of(net)

    right = learned(None)
    for stop in (1, 5, 7, 10):
        path = tmp_path / str(stop)
        Loader.stop = stop
        with pytest.raises(Stops):
            learned(path)
        Loader.stop = 99
        assert learned(path) == right


@pytest.mark.parametrize(("epochs", "batches", "word"), [
    (0, [(torch.zeros(2, 3), torch.zeros(2).long())], "0 epochs"),
    (1, [], "no batches"),
    (1, [(torch.zeros(2, 3), torch.tensor([0, 7]))], "A label is 7"),
])
def test_what_cannot_be_trained(epochs, batches, word):
    with pytest.raises(DataError, match=word):
        fit(nn.Linear(3, 3), batches, epochs=epochs, quiet=True)


def test_the_optimizers_and_a_teacher_lower_the_loss():
    for optimizer in (Adam(1e-2), Nesterov(0.02)):
        simulation, net, batches = learner()
        losses = fit(simulation, batches, epochs=12, optimizer=optimizer, quiet=True,
                     distillation=Distillation(net, share=0.5))
        assert losses[-1] < losses[0]
        assert not simulation.training


def test_distillation_by_its_formula():
    teacher, student = nn.Linear(5, 3), nn.Linear(5, 3)
    x, labels = torch.randn(7, 5), torch.tensor(2.5)
    p, q = (net(x).detach().double() / 4 for net in (teacher, student))
    p, q = p.softmax(1), q.softmax(1)
    expected = 0.7 * 16 * (p * (p.log() - q.log())).sum(1).mean() + 0.3 * 2.5
    torch.testing.assert_close(Distillation(teacher).loss(x, student(x), labels).double(), expected, rtol=1e-5, atol=0)


def test_batch_norm_statistics_anew():
    """Those of one batch norm, whose input nothing else changes: the moments of all batches together."""
    simulation, _, _ = learner()
    batches = [torch.randn(size, 1, 6, 6) * 2 + 1 for size in (8, 20, 4)]
    renewed = reestimate_batch_norm(simulation, batches)
    simulation.eval()
    seen = torch.cat([nn.functional.conv2d(simulation.quantizer("x" if "x" in simulation.plan.sites else "input")(x),
                                           simulation.quantizer("0.weight")(simulation.model.tensor("0.weight")),
                                           simulation.model.tensor("0.bias")) for x in batches]).detach()
    torch.testing.assert_close(renewed.model.tensor("1.running_mean"), seen.mean((0, 2, 3)))
    torch.testing.assert_close(renewed.model.tensor("1.running_var"), seen.transpose(0, 1).flatten(1).var(1))
    assert not torch.equal(simulation.model.tensor("1.running_mean"), renewed.model.tensor("1.running_mean"))


def alone():
    """A batch norm that no layer's sums go into: it reads codes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)).eval()
        x = torch.randn(12, 1, 6, 6)
    model = fold(capture(net, x), norms="keep")
    return trainable(calibrate(model, plan(model, "qat-w8a8"), [x])), [(x, torch.arange(12) % 3)]


def test_statistics_anew_of_a_batch_norm_of_its_own():
    simulation, [(x, _)] = alone()
    renewed = reestimate_batch_norm(simulation, [x[:5], x[5:]])
    read = []

    class Reading(SimulationVisitor):
        def value(self, name, value):
            value = super().value(name, value)
            if name == "1":
                read.append(value)
            return value

    simulation.eval()
    with torch.no_grad():
        simulation.run(simulation.model.named_inputs((x,), {}), Reading(simulation))
    torch.testing.assert_close(renewed.model.tensor("2.running_mean"), read[0].mean((0, 2, 3)))
    torch.testing.assert_close(renewed.model.tensor("2.running_var"), read[0].transpose(0, 1).flatten(1).var(1))
    program = lower(renewed)
    assert not differences(program, {program.inputs[0]: x.numpy()})


def test_frozen_statistics_of_a_batch_norm_of_its_own():
    simulation, batches = alone()
    frozen = freeze_batch_norm(simulation)
    mean, gamma = (frozen.model.tensor(f"2.{name}").clone() for name in ("running_mean", "weight"))
    fit(frozen, batches, epochs=2, optimizer=Adam(1e-2), quiet=True)
    assert torch.equal(frozen.model.tensor("2.running_mean"), mean)
    assert not torch.equal(frozen.model.tensor("2.weight"), gamma)


def test_bits_lowered_in_steps():
    simulation, _, batches = learner()
    fit(simulation, batches, epochs=2, quiet=True)
    learned = simulation.model.tensor("0.weight").clone()
    two_bits = Recipe.model_validate({"version": 1, "weights": {"format": "int2", "block": "tensor", "method": "lsq"},
                                      "activations": {"format": "uint2", "method": "lsq"}})
    narrower = narrow(simulation, two_bits, [batches[0][0]])
    assert torch.equal(narrower.model.tensor("0.weight"), learned)
    assert str(narrower.quantizer("2").spec.format) == "uint2"
    fit(narrower, batches, epochs=1, quiet=True)
    assert torch.equal(simulation.model.tensor("0.weight"), learned), "the one before stays as it is"


def test_frozen_batch_norm_learns_but_keeps_its_statistics():
    simulation, _, batches = learner()
    frozen = freeze_batch_norm(simulation)
    mean, gamma = (frozen.model.tensor(f"1.{name}").clone() for name in ("running_mean", "weight"))
    fit(frozen, batches, epochs=2, optimizer=Adam(1e-2), quiet=True)
    assert torch.equal(frozen.model.tensor("1.running_mean"), mean)
    assert not torch.equal(frozen.model.tensor("1.weight"), gamma)
    assert not simulation.model.norms_frozen


def test_epochs_are_told_with_their_scores_and_again_after_a_resumption(tmp_path):
    """Scores neither change what is learned nor what random numbers come next; a killed training tells all epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(3)]
        start = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))

    def trained(**options):
        net = copy.deepcopy(start)
        losses = fit(net, data, epochs=3, quiet=True, **options)
        return net, losses

    def score(net):
        assert not net.training
        torch.rand(5)  # what an evaluation draws is its own
        return float(net[0].weight.detach().sum())

    plain, losses = trained()
    told = []
    scored, _ = trained(evaluate=score, on_epoch=told.append)
    assert bytes_of(scored) == bytes_of(plain)
    assert [epoch.number for epoch in told] == [1, 2, 3]
    assert [epoch.loss for epoch in told] == list(losses)
    assert told[-1].score == score(plain)
    assert told[0].rate > told[1].rate > told[2].rate >= 0

    class StoppedError(Exception):
        pass

    def stop(epoch):
        if epoch.number == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        trained(evaluate=score, on_epoch=stop, checkpoint=tmp_path / "c")
    again = []
    resumed, _ = trained(evaluate=score, on_epoch=again.append, checkpoint=tmp_path / "c")
    assert again == told
    assert bytes_of(resumed) == bytes_of(plain)
