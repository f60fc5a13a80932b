"""`python -m benchmarks.quantizing`: what quantizing MobileNetV2 costs, beside its own float forward pass.

The bar: capture, fold, plan, calibrate on 8 batches and lower take at most 3 times the float forward time of those
batches plus 20 seconds. Weights are random: they do not change the time.
"""

from time import perf_counter

import torch

from fewbits.capture.capture import capture
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.machine import this_machine
from fewbits.tasks.mobilenet_v2 import mobilenet_v2
from fewbits.tasks.training import initialised

BATCHES, IMAGES = 8, 8


def main() -> None:
    """Prints seconds of both, and the bar."""
    generator = torch.Generator().manual_seed(0)
    net = initialised(mobilenet_v2, seed=0).eval()
    batches = [torch.randn(IMAGES, 3, 224, 224, generator=generator) for _ in range(BATCHES)]
    with torch.no_grad():
        net(batches[0])
        start = perf_counter()
        for batch in batches:
            net(batch)
        forward = perf_counter() - start
    start = perf_counter()
    model = fold(capture(net, batches[0][:2]))
    lower(calibrate(model, plan(model, "w8a8"), batches))
    quantizing = perf_counter() - start
    print(f"float forward of {BATCHES} batches of {IMAGES}: {forward:.2f} s; quantizing: {quantizing:.2f} s; "
          f"bar: {3 * forward + 20:.2f} s")
    print(this_machine())


if __name__ == "__main__":
    main()
