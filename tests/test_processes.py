"""Two processes calibrate and train as one does: gloo, on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from fewbits.errors import DataError
from fewbits.processes import Processes

SCRIPT = """
import json, os, sys, time
import numpy as np, torch
from torch import nn
from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.processes import joined
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.train.fit import Nesterov, fit
from fewbits.train.registry import trainable

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(),
                    nn.Linear(96, 5)).eval()
x, y = torch.randn(120, 2, 8, 8), torch.randint(0, 5, (120,))
x[100:] *= 3
batches = [(x[i:i + 24], y[i:i + 24]) for i in range(0, 120, 24)]

def bits(simulation):
    return {q.site: [q.encoding.scale.tobytes().hex(), q.encoding.zero_point.tobytes().hex()]
            for q in simulation.quantizers()}

class Slow(list):
    def __iter__(self):
        for item in list.__iter__(self):
            time.sleep(float(os.environ.get("PAUSE", "0")))
            yield item

with joined() as processes:
    told = {"encodings": {}}
    model = fold(capture(net, x[:2]))
    for recipe in ("w8a8", "default-w8a8", "w8a8-entropy") if "CHECKPOINT" not in os.environ else ():
        told["encodings"][recipe] = bits(calibrate(model, plan(model, recipe), [b for b, _ in batches],
                                                   processes=processes))
    learning = trainable(calibrate(model, plan(model, "lsq-w4a4"), [b for b, _ in batches], processes=processes))
    learning = learning.double()  # so that the order of sums, which two processes change, turns no rounding over
    doubles = [(b.double(), labels) for b, labels in batches]
    losses = fit(learning, Slow(doubles), epochs=10, optimizer=Nesterov(0.01), quiet=True, processes=processes,
                 checkpoint=os.environ.get("CHECKPOINT"), save_every=1 if "CHECKPOINT" in os.environ else None)
    told["losses"] = losses
    told["learned"] = {name: p.detach().reshape(-1).tolist() for name, p in learning.named_parameters()}
    print(json.dumps(told))
"""


def started(count, **more):
    """The script in so many processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | more
    return [subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=shared | {"RANK": str(rank), "WORLD_SIZE": str(count)}) for rank in range(count)]


def told(processes):
    outputs = [process.communicate(timeout=240) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs[0][1] + outputs[-1][1]
    return [json.loads(out) for out, _ in outputs]


def test_two_processes_find_and_learn_what_one_does():
    one, = told(started(1))
    first, second = told(started(2))
    assert first == second, "they are not in step"
    assert first["encodings"] == one["encodings"], "bit for bit"
    assert len(first["encodings"]) == 3
    assert first["losses"] == pytest.approx(one["losses"], abs=1e-9)
    for name, numbers in one["learned"].items():
        assert first["learned"][name] == pytest.approx(numbers, abs=1e-9), name


def test_a_process_that_ends_ends_the_others_and_they_go_on(tmp_path):
    checkpoint = str(tmp_path / "kept")
    whole = told(started(2, CHECKPOINT=str(tmp_path / "whole")))[0]
    survivor, killed = started(2, CHECKPOINT=checkpoint, PAUSE="0.1")
    while not os.path.exists(checkpoint):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    out, err = survivor.communicate(timeout=120)
    killed.communicate()
    assert survivor.returncode
    assert not out
    assert "another process of this job has ended" in err
    assert told(started(2, CHECKPOINT=checkpoint))[0] == whole, "to the same numbers"


def test_shares_are_neighbours_and_whole():
    for count in (1, 2, 3, 7):
        for number in (7, 24, 25):
            shares = [Processes(rank, count).share(number) for rank in range(count)]
            assert [item for share in shares for item in share] == list(range(number))
    x = torch.arange(10)
    assert torch.cat([Processes(rank, 3).part(x) for rank in range(3)]).tolist() == x.tolist()
    with pytest.raises(DataError, match="a batch of 2 does not give each of 3 processes something"):
        Processes(0, 3).part(torch.zeros(2))
