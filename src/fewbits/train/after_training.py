"""Activations that stay float while the weights are trained, and are calibrated afterwards.

The papers of weight-only methods (BinaryConnect, BWN, TWN, TTQ) have float activations; a program has none.
"""

from collections.abc import Iterable

import torch

from fewbits.program.inputs import Batch
from fewbits.quant.calibrate import model_inputs
from fewbits.quant.clipping import warn_of_clipping
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.simulation import Simulation


class AfterTraining(FakeQuantize):
    """Off until `calibrate_activations`."""

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        self.mode = "off"


def calibrate_activations(simulation: Simulation, batches: Iterable[Batch]) -> Simulation:
    """A copy in evaluation mode whose activations still in float get ranges found on these batches, with the
    weights as they were learned. Raises CalibrationError as `calibrate` does."""
    finished = simulation.to_repair().eval()
    waiting = [quantizer for quantizer in finished.quantizers() if isinstance(quantizer, AfterTraining)]
    if not waiting:
        return finished
    for quantizer in waiting:
        quantizer.mode, quantizer.observer = "observe", quantizer.spec.observer()
    with torch.no_grad():
        for batch in batches:
            finished.run(model_inputs(finished.model, batch))
    for quantizer in waiting:
        quantizer.fit()
        quantizer.mode = "simulate"
    warn_of_clipping(waiting)
    return finished
