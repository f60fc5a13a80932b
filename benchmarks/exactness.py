"""Is what fewbits says of processors true? `python -m benchmarks.exactness [--count 200] [--first 0]`

Random networks under five recipes. Every program that must be exact on this processor, as it is exported for any
processor and, where that is said, plainly, is compared with the reference at every value; and each layer is run alone
on the codes by which its pairs of products get farthest: where it is said to saturate, ONNX Runtime's numbers must be
those of a NumPy model of the saturating kernel (fewbits/testing/saturation.py), else the exact ones.
"""

import argparse
import sys
import warnings

import onnxruntime
from rich.console import Console
from rich.table import Table

from fewbits.capture.capture import capture
from fewbits.engines.exactness import reliance
from fewbits.engines.processor import this_processor
from fewbits.errors import FewbitsError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.progress import track
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.testing import random_network
from fewbits.testing.exactness import ExactnessCheck, check_exactness

RECIPES = {"w8a8": "onnxruntime", "w8a8-per-tensor": "onnxruntime", "w8a8-symmetric": "tensorrt",
           "w7a8": "onnxruntime-portable", "dynamic-w8a8": "onnxruntime"}


def checked(seed: int, recipe: str) -> tuple[bool, ExactnessCheck] | None:
    """Whether a random network's codes depend on the processor, and what was found; None where it has no program."""
    net, example = random_network(seed)
    try:
        model = fold(capture(net, example))
        program = lower(calibrate(model, plan(model, recipe), [example / 1.3]), RECIPES[recipe])
    except FewbitsError:  # some have operators without integers, or return NaN
        return None
    return bool(reliance(program).nodes), check_exactness(program, {program.inputs[0]: example.numpy()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    here = this_processor()
    table = Table("recipe", "programs", "depend on the processor", "exact here", "codes compared", "differ",
                  "layers alone", "wrong here, as modelled", "disputed",
                  title=f"{here}, onnxruntime {onnxruntime.__version__}: products are "
                        f"{'added in pairs of 16 bits' if here.adds_pairs_in_16_bits else 'added in 32 bits'}")
    bad = 0
    for recipe in RECIPES:
        done = [found for seed in track(range(chosen.first, chosen.first + chosen.count), recipe)
                if (found := checked(seed, recipe)) is not None]
        each = [check for _, check in done]
        differing, disputed = sum(c.differing for c in each), [name for c in each for name in c.disputed]
        bad += differing + len(disputed)
        table.add_row(recipe, str(len(done)), str(sum(depends for depends, _ in done)), str(sum(c.exact for c in each)),
                      str(sum(c.compared for c in each)), str(differing), str(sum(c.layers for c in each)),
                      str(sum(c.wrong for c in each)), ", ".join(disputed) or "none")
    Console(width=160).print(table)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
