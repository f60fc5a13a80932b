"""What quantizing costs in memory: at most one extra copy of the weights, measured on a process of its own."""

import subprocess
import sys

SCRIPT = """
import resource, sys
import torch
from torch import nn
from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan

torch.set_num_threads(1)

def network(layers, width):
    return nn.Sequential(*[nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU())
                           for _ in range(layers)])

def quantize(net, x):
    model = fold(capture(net, x))
    return lower(calibrate(model, plan(model, "w8a8"), [x]))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

quantize(network(2, 64), torch.randn(2, 64))  # what torch loads on first use is not ours
layers, width = 24, 1500
net, x = network(layers, width).eval(), torch.randn(2, width)
net(x)
before = peak()
program = quantize(net, x)
weights = 4 * layers * width * width
print((peak() - before) / weights)
"""


def test_at_most_one_extra_copy_of_the_weights():
    """The program itself is a quarter (its weights are bytes); the rest is working memory."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    copies = float(done.stdout)
    one_copy, program, working_memory = 1.0, 0.25, 0.25  # of 24 layers, six at work
    assert copies <= one_copy + program + working_memory, f"{copies:.2f} copies of the weights"
