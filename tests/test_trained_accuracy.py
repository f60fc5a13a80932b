"""Accuracy of a network that was really trained, on real images that come with scikit-learn: the demo's digits.

The floors are not fitted to what comes out. Float: 97 %, which scikit-learn's own example of these digits reaches with
a support vector machine ("Recognizing hand-written digits", half of the images to learn from as here). Quantized,
against the float network on the same images: at most half a point lost at 8 bits and one with 4-bit weights; two with
2-bit weights and activations between 8-bit ends, learned for ten epochs.
"""

import copy

import pytest
import torch

import fewbits as fb
from fewbits.data.normalize import DIGITS
from fewbits.data.sets import digits
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.training import initialised, train

DATA = digits()
TEST = DATA.test.batches(250, DIGITS)
CALIBRATION = DATA.calibration.inputs(64, DIGITS)
EXAMPLE = next(iter(CALIBRATION))[:2]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    learned = initialised(digits_net, seed=0)
    train(learned, DATA.train, epochs=30, normalize=DIGITS, seed=0, quiet=True)
    return learned


def accuracy(model) -> float:
    return fb.evaluate(model, TEST).mean


def test_float(net) -> None:
    assert accuracy(net) >= 0.97


@pytest.mark.parametrize(("recipe", "loss"), [("w8a8", 0.005), ("w8a8-per-tensor", 0.005), ("w4a8", 0.01)])
def test_quantized_after_training(net, recipe: str, loss: float) -> None:
    program = fb.quantize(copy.deepcopy(net), EXAMPLE, CALIBRATION, recipe)
    assert accuracy(program) >= accuracy(net) - loss


def test_two_bits_are_learned(net) -> None:
    model = fb.fold(fb.capture(copy.deepcopy(net), EXAMPLE), norms="keep")
    sim = fb.trainable(fb.calibrate(model, fb.plan(model, "lsq-w2a2"), CALIBRATION))
    unlearned = accuracy(fb.lower(fb.calibrate_activations(sim, CALIBRATION)))
    fb.fit(sim, DATA.train.batches(32, DIGITS, torch.Generator().manual_seed(0)), epochs=10, optimizer=fb.Adam(2e-3),
           quiet=True)
    learned = accuracy(fb.lower(fb.calibrate_activations(sim, CALIBRATION)))
    assert learned >= accuracy(net) - 0.02
    assert unlearned < learned - 0.05  # two bits that nobody trained are far below, so that the floor means something
