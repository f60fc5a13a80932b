"""Progressive quantization: bit widths lowered in stages, each starting from the weights of the one before.

Source: Zhuang et al. 2018, arXiv:1711.00205, §3.2 (progressive quantization); Park and Yoo 2020 (PROFIT).
"""

import copy
from collections.abc import Iterable
from pathlib import Path

from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.train.registry import trainable


def narrow(simulation: Simulation, recipe: str | Path | Recipe, batches: Iterable[Batch]) -> Simulation:
    """The network with the weights trained so far under another recipe, recalibrated and ready for more training.

    The simulation stays as it is. Raises as `plan`, `calibrate` and `trainable` do.
    """
    model = copy.deepcopy(simulation.model).eval()
    return trainable(calibrate(model, plan(model, recipe), batches))
