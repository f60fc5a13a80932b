"""A repair that is really killed, and begun again, gives the bytes of one that was left in peace."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from optimize_cases import batches, simulation

from fewbits.optimize.adaround import Schedule, adaround
from fewbits.storage.container import parse
from fewbits.testing.compared import bytes_of

SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
from optimize_cases import batches, simulation
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.checkpoint import Checkpoint

add = Checkpoint.add

def slowly(self, tensors):
    add(self, tensors)
    time.sleep(60)

Checkpoint.add = slowly
adaround(simulation(), batches(2), schedule=Schedule(iterations=20, rows=128), checkpoint=sys.argv[1])
"""


def repaired(**options):
    return bytes_of(adaround(simulation(), batches(2), schedule=Schedule(iterations=20, rows=128), even_if_worse=True,
                             **options))


def test_a_kill_changes_no_byte(tmp_path):
    path = tmp_path / "killed"
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)],
                               env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    whole = repaired(checkpoint=tmp_path / "whole")
    while not path.exists():
        assert process.poll() is None, "it was to be killed half-way"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept, everything = (len(parse(file.read_bytes()).tensors) - 1 for file in (path, tmp_path / "whole"))
    assert kept == 1 < everything
    assert repaired(checkpoint=path) == whole == repaired()
