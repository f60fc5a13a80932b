"""fewbits leaves the process it runs in as it was, and runs in many threads, forked and spawned workers at once."""

import dataclasses
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.engines.registry import ENGINES

STATE = """
import json, os, random, sys, warnings
import numpy as np
import torch

def state():
    return {
        "Python's random": random.getstate(), "numpy's random": np.random.get_state()[1].tolist(),
        "torch's random": torch.get_rng_state().tolist(), "warning filters": [str(one) for one in warnings.filters],
        "environment": dict(os.environ), "sys.path": list(sys.path), "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(), "NNPACK": torch._C._get_nnpack_enabled(),
        "default type": str(torch.get_default_dtype()), "folder": os.getcwd()}

before = state()
"""

USE = """
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
x, y = torch.rand(8, 3, 8, 8), torch.arange(8) % 4
before = state()
program = fb.quantize(net, x, [x], recipe="w7a8", profile="onnxruntime-portable")
program(x)
model = fb.fold(fb.capture(net, x), norms="keep")
simulation = fb.trainable(fb.calibrate(model, fb.plan(model, "lsq-w4a4"), [x]))
fb.fit(simulation, [(x, y)], epochs=2, quiet=True)
fb.adaround(fb.calibrate(model, fb.plan(model, "w4a8"), [x]), [x])
program.save(sys.argv[1] + "/a.fewbits")
fb.load(sys.argv[1] + "/a.fewbits")
fb.export_onnx(program, sys.argv[1] + "/a.onnx", verify=[x])
"""


def moved(script: str, *arguments: str, **environment: str) -> list[str]:
    tell = "print(json.dumps([name for name, now in state().items() if json.dumps(before[name]) != json.dumps(now)]))"
    done = subprocess.run([sys.executable, "-c", f"{STATE}{script}\n{tell}", *arguments], capture_output=True,
                          text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_an_import_moves_nothing():
    assert moved("import fewbits") == []


def test_use_moves_nothing(tmp_path):
    assert moved("import fewbits as fb" + USE, str(tmp_path)) == []


def test_presets_and_files_are_read_the_same_under_every_locale():
    assert moved("from fewbits.quant.presets import presets; from fewbits.quant.recipe import recipe; "
                 "[recipe(name) for name in presets()]", LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0") == []


@pytest.fixture(scope="module")
def quantized():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
                            nn.Linear(288, 10)).eval()
        inputs = [torch.rand(count, 3, 8, 8) for count in (1, 2, 5, 17)]
    program = fb.quantize(net, inputs[1], inputs, recipe="w7a8", profile="onnxruntime-portable")
    return program, inputs, [program.codes(x).clone() for x in inputs]


@pytest.fixture(scope="module")
def on_torch(quantized):
    program, inputs, right = quantized
    return fb.QuantizedModel(program.program, "torch"), inputs, right


def calls_gone_wrong(program, inputs, right, calls=25):
    """Which inputs gave other codes to 32 threads of so many calls each."""
    wrong = []

    def work(seed):
        order = random.Random(seed)
        for _ in range(calls):
            which = order.randrange(len(inputs))
            if not torch.equal(program.codes(inputs[which]), right[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("engine", ["fastest", "native", "onnxruntime", "reference"])
def test_many_threads_call_one_program(quantized, engine):
    """`python -m benchmarks.threads` calls it 32 000 times."""
    if told := ENGINES[engine]().missing:
        pytest.skip(told)
    program, inputs, right = quantized
    program = fb.QuantizedModel(program.program, engine)
    assert calls_gone_wrong(program, inputs, right, 5 if engine == "reference" else 25) == []


def test_many_threads_call_one_program_in_torch(on_torch):
    program, inputs, right = on_torch
    torch._C._set_nnpack_enabled(True)
    steps, seen = program._prepared.executor._steps, []

    def watched(step):
        def run(*arguments):
            seen.append(torch._C._get_nnpack_enabled())
            return step(*arguments)
        return run

    program._prepared.executor._steps = [(node, watched(step)) for node, step in steps]
    try:
        wrong = calls_gone_wrong(program, inputs, right)
    finally:
        program._prepared.executor._steps = steps
    assert len(seen) == 32 * 25 * len(steps) and not any(seen), "a step ran with NNPACK on"
    assert torch._C._get_nnpack_enabled(), "NNPACK stays off"
    assert not wrong


def codes_in_a_worker(program, x, answers):
    answers.put((program.codes(x).numpy().tobytes(), torch._C._get_nnpack_enabled()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_give_the_same_codes(quantized, method):
    program, inputs, right = quantized
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    workers = [context.Process(target=codes_in_a_worker, args=(program, inputs[2], answers)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [(right[2].numpy().tobytes(), True)] * 2


def test_a_worker_forked_while_a_program_runs_is_not_held_up(on_torch):
    program, inputs, right = on_torch
    (node, step), *others = program._prepared.executor._steps
    answers = multiprocessing.get_context("fork").Queue()

    def forks(*arguments):
        child = os.fork()
        if child == 0:
            program._prepared.executor._steps = [(node, step), *others]
            codes_in_a_worker(program, inputs[0], answers)
            answers.close()
            answers.join_thread()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        return step(*arguments)

    program._prepared.executor._steps = [(node, forks), *others]
    try:
        program.codes(inputs[0])
    finally:
        program._prepared.executor._steps = [(node, step), *others]
    assert answers.get(timeout=60) == (right[0].numpy().tobytes(), True)


class _Attending(nn.Module):
    """Numbers that are none (a mask, token numbers), and a recurrence with a body."""

    def __init__(self):
        super().__init__()
        self.tokens, self.steps, self.head = nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, tokens):
        x = self.tokens(tokens)
        shares = (x @ x.transpose(-1, -2)).masked_fill((tokens == 0)[:, None], -1e9).softmax(-1)
        return self.head(self.steps(shares @ x)[0])


@pytest.mark.parametrize(("net", "x", "kept"), [
    (_Attending(), torch.randint(0, 9, (2, 6)), lambda node: node.dtype == "bool"),
    (nn.Conv2d(3, 4, 3), torch.rand(2, 3, 8, 8), lambda node: node.free == (2, 3)),
], ids=["numbers that are none", "sizes that are free"])
def test_nothing_of_a_graph_is_lost_in_pickle(net, x, kept):
    model = fb.fold(fb.capture(net.eval(), x))
    back = pickle.loads(pickle.dumps(model)).graph
    for one, other in zip(model.graph.everything, back.everything, strict=True):
        for each in dataclasses.fields(one):
            if each.name != "arguments":
                assert getattr(other, each.name) == getattr(one, each.name), (one.name, each.name)
        assert other.arguments.keys() == one.arguments.keys() and other.refs == one.refs and other.params == one.params
    assert any(map(kept, back.everything))
    assert (back.inputs, back.structure, back.style) == (
        model.graph.inputs, model.graph.structure, model.graph.style)


def test_models_simulations_and_programs_go_through_pickle(quantized):
    program, inputs, right = quantized
    again = pickle.loads(pickle.dumps(program))
    assert type(again) is fb.QuantizedModel and torch.equal(again.codes(inputs[3]), right[3])
    net, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.rand(4, 6)
    model = fb.fold(fb.capture(net, x))
    back = pickle.loads(pickle.dumps(model))
    assert torch.equal(back(x), model(x))
    assert [(n.name, n.target, n.operator) for n in back.graph.nodes] == [
        (n.name, n.target, n.operator) for n in model.graph.nodes]
    for recipe in ("w8a8", "lsq-w4a4", "kmeans-w4a8"):
        simulation = fb.calibrate(model, fb.plan(model, recipe), [x])
        if recipe == "lsq-w4a4":
            simulation = fb.trainable(simulation)
        back = pickle.loads(pickle.dumps(simulation))
        assert torch.equal(back(x), simulation(x)) and str(back.plan) == str(simulation.plan)
        if recipe != "kmeans-w4a8":  # which learns before it is lowered
            assert torch.equal(fb.lower(back).codes(x), fb.lower(simulation).codes(x))
