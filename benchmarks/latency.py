"""`python -m benchmarks.latency`: float against int8 in onnxruntime, as ratios.

The float peer is the same graph without quantizers, run by the same engine with the same number of threads, in
turns with the int8 one. Weights are random: they do not change the time.
"""

import torch
from rich.console import Console
from rich.table import Table

from fewbits.graph.capture import capture
from fewbits.graph.fold import fold
from fewbits.lower.lower import lower
from fewbits.progress import track
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.latency import latency
from fewbits.report.machine import this_machine
from fewbits.tasks.registry import TASKS
from fewbits.tasks.training import initialised

NETWORKS = ("lenet5", "resnet20", "mobilenet_v2")
BATCHES = (1, 16)


def main() -> None:
    """Prints a table: one row a network and batch."""
    table = Table("network", "batch", "float ms", "int8 ms", "float / int8",
                  title="onnxruntime, float against int8, one thread")
    for name, batch in track([(n, b) for n in NETWORKS for b in BATCHES], "measuring"):
        task = TASKS[name]
        assert task.example_shape is not None, "our own tasks know their input"
        x = torch.randn(max(batch, 2), *task.example_shape, generator=torch.Generator().manual_seed(0))
        model = fold(capture(initialised(task.build, seed=0).eval(), x))
        program = lower(calibrate(model, plan(model, "w8a8"), [x]))
        measured = latency(program, {program.inputs[0]: x[:batch].numpy()}, threads=1)
        table.add_row(name, str(batch), f"{measured.float_ms:.3f}", f"{measured.ms:.3f}",
                      f"{measured.float_ms / measured.ms:.2f}")
    console = Console()
    console.print(table)
    console.print(str(this_machine()), highlight=False)


if __name__ == "__main__":
    main()
