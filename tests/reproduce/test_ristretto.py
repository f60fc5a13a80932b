"""Ristretto's table on Caffe's LeNet: the code on a small share of MNIST; the command gives the figures."""

import pytest

from fewbits.data.sets import load
from fewbits.reproduce.ristretto import ROWS, SCHEMES, accuracies, trained
from fewbits.tasks.lenet import lenet_caffe


def test_the_network_is_caffes():
    assert sum(p.numel() for p in lenet_caffe().parameters()) == 431_080


def test_the_recipes_read():
    assert len({scheme.name for scheme in SCHEMES}) == len(SCHEMES) == 5
    for scheme in SCHEMES:
        assert scheme.recipe.weight_spec.block.sizes == ()
    assert str(SCHEMES[3].recipe.weight_spec.format) == "e4m3-finite-zero"


@pytest.mark.shared
def test_every_scheme_keeps_a_small_network(shared):
    """8000 images and two passes: the float network is above 90 %, and no scheme may lose 5 points of it."""
    data = load(f"npz:{shared}/data/mnist/mnist_u8.npz")
    small = type(data)(name=data.name, test=data.test.take(1000), calibration=data.calibration.take(256),
                       train=data.train.take(8000), classes=10, normalize=data.normalize)
    reached = dict(accuracies(trained(small, epochs=2, seed=0), small))
    assert reached["float"] > 90
    for name, figure in reached.items():
        assert reached["float"] - figure < 5, name
    assert set(ROWS[0].published) <= set(reached)
