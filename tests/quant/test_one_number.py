"""Calibration data that is one number from end to end is said, whatever the network; data with two numbers is not."""

import warnings

import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.errors import DataWarning

NETWORKS = {
    "batch norm at its defaults": [nn.BatchNorm2d(4)], "no batch norm": [],
}


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, 2)).eval()


@pytest.mark.parametrize("norm", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("number", [0.0, 0.5])
def test_one_number_is_told_with_the_inputs_name(norm, number):
    data = torch.full((8, 3, 6, 6), number)
    with pytest.warns(DataWarning, match=f"input 'input' is {number:g} in every place of every calibration batch"):
        fb.quantize(network(norm), data, [data, data])


@pytest.mark.parametrize("batches", [
    [torch.zeros(8, 3, 6, 6), torch.ones(8, 3, 6, 6)],
    [torch.zeros(8, 3, 6, 6), torch.rand(8, 3, 6, 6)],
    [torch.eye(6).expand(8, 3, 6, 6)]])
def test_two_numbers_are_no_news(batches):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        fb.quantize(network([]), batches[0], batches)


def test_of_several_inputs_the_one_is_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(4, 4)

        def forward(self, image, mask):
            return self.line(image) * mask

    torch.manual_seed(0)
    batch = (torch.randn(16, 4), torch.ones(16, 4))
    with pytest.warns(DataWarning) as caught:
        fb.quantize(Two().eval(), batch, [batch])
    assert [str(one.message).split("'")[1] for one in caught if one.category is DataWarning] == ["mask"]
