"""Bit widths lowered in steps, each beginning with what the one before has learned.

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
    """The network as it has learned so far, under another recipe, calibrated anew and ready to go on learning.

    The simulation stays as it is. Raises as `plan`, `calibrate` and `trainable` do.
    """
    model = copy.deepcopy(simulation.model).eval()
    return trainable(calibrate(model, plan(model, recipe), batches))
