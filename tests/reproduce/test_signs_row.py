"""Networks of signs whose pools stand before batch norm, run small."""

from functools import partial

import pytest
import torch

from fewbits.capture.capture import capture
from fewbits.data.normalize import IMAGENET
from fewbits.data.split import DataSet, Split
from fewbits.fold.fold import fold
from fewbits.quant.planner import plan
from fewbits.reproduce.few_bits import Training, run
from fewbits.reproduce.row import Given
from fewbits.tasks.few_bit_nets import lenet_tanh
from fewbits.tasks.vgg_cifar import BEFORE_POOLS, vgg_signs
from fewbits.train.fit import Adam


def coloured(train: int, test: int) -> DataSet:
    """Images of noise whose brightest rows tell the class."""
    count = train + test
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 10, (count,), generator=generator)
    x = torch.randint(0, 60, (count, 3, 32, 32), generator=generator).to(torch.uint8)
    for row in (1, 2):
        x[torch.arange(count), :, 3 * y + row] = 250
    whole = Split(x, y)
    return DataSet("rows", whole.take(train), whole.take(64), whole.subset(range(train, count)), 10, IMAGENET)


@pytest.mark.parametrize(("recipe", "last"), [("xnor", "uint8"), ("bnn", "binary")])
def test_a_pool_before_batch_norm_reads_eight_bits_and_layers_read_signs(recipe: str, last: str) -> None:
    model = fold(capture(vgg_signs(4).eval(), torch.zeros(2, 3, 32, 32)), norms="keep")
    training = Training(vgg_signs, recipe, 1, 1, before_pools=BEFORE_POOLS)
    sites = {name: str(site.spec.format) for name, site in plan(model, training.rules()).sites.items()
             if site.kind == "activation" and site.spec is not None}
    signs = ("3", "6", "10", "13")
    assert sites == {**dict.fromkeys(BEFORE_POOLS, "int8"), **dict.fromkeys(signs, "binary"), "17": last}


@pytest.mark.parametrize("recipe", ["xnor", "bnn"])
def test_presets_of_signs_leave_no_other_number_between_hidden_layers(recipe: str) -> None:
    """Convolution, batch norm, hard tanh: what one hidden layer hands to the next is 1 bit."""
    model = fold(capture(lenet_tanh().eval(), torch.zeros(2, 1, 28, 28)), norms="keep")
    sites = {name: str(site.spec.format) for name, site in plan(model, recipe).sites.items()
             if site.kind == "activation" and site.spec is not None}
    last = [name for name in sites if sites[name] != "binary"]
    assert len(sites) - len(last) >= 2
    assert len(last) == (recipe == "xnor"), "XNOR-Net's last layer reads 8 bits"


@pytest.mark.parametrize("recipe", ["xnor", "bnn"])
def test_signs_run_small(recipe: str) -> None:
    training = Training(partial(vgg_signs, width=8), recipe, 1, 6, IMAGENET, Adam(3e-3), batch_size=20,
                        held_out=40, before_pools=BEFORE_POOLS)
    measured = run(training, Given(coloured(640, 80), 0), lambda _: None)
    assert measured["codes differing"] == 0
    assert measured["codes compared"] > 100_000
    assert measured["float"] > 90
    assert measured["few bits"] > 60, "of ten classes"
    assert abs(measured["program"] - measured["few bits"]) <= 5, "one of 80 images is 1.25"
