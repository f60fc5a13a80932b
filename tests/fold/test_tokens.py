"""Token numbers, positions and masks: folded where no data are in them, else carried as integers."""

import pytest
import torch
from tests.fold.test_masks import decibels, same_everywhere
from torch import nn

import fewbits as fb
from fewbits.errors import ProgramError
from fewbits.program import reference

IDS = torch.randint(0, 50, (16, 8), generator=torch.Generator().manual_seed(1))
KEEP = torch.ones(16, 8, dtype=torch.long)
KEEP[::2, 6:] = 0


class Tokens(nn.Module):
    def __init__(self, positions):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.head = nn.Embedding(50, 16), nn.Embedding(8, 16), nn.Linear(16, 4)
        self.register_buffer("kept", torch.arange(8)[None])
        self.positions = positions

    def forward(self, ids):
        return self.head((self.words(ids) + self.places(self.positions(self, ids))).mean(1))


class Masked(Tokens):
    def forward(self, ids, keep):
        return self.head(self.positions(self.words(ids), keep))


def quality(net, example):
    net = net.eval()
    given = example if isinstance(example, tuple) else (example,)
    quantized = fb.quantize(net, example, [example])
    assert same_everywhere(quantized.program, example)
    with torch.no_grad():
        return decibels(net(*given), quantized(*given))


@pytest.fixture(scope="module")
def known():
    return quality(Tokens(lambda net, ids: net.kept), IDS)


@pytest.mark.parametrize("positions", [
    lambda net, ids: torch.arange(ids.shape[1]) + 1 - 1,
    lambda net, ids: torch.ones_like(ids).cumsum(1) - 1,
    lambda net, ids: net.kept.expand(ids.shape[0], -1),
    lambda net, ids: net.kept.repeat(ids.shape[0], 1),
    lambda net, ids: ids * 0 + net.kept,
    lambda net, ids: ((ids >= 0).int().cumsum(1) - 1).long(),
    lambda net, ids: torch.minimum(net.kept, ids * 0 + 7) % 8,
])
def test_positions_in_any_form_are_the_same_positions(known, positions):
    assert quality(Tokens(positions), IDS) == pytest.approx(known, abs=1e-6)


@pytest.mark.parametrize("weights", [
    lambda x, keep: (x * keep[..., None].float()).sum(1) / keep.sum(1, keepdim=True).float(),
    lambda x, keep: torch.where(keep.bool()[..., None], x, 0.0).mean(1),
    lambda x, keep: x.masked_fill((keep == 0)[..., None], 0.0).mean(1),
    lambda x, keep: torch.where(
        keep.bool()[torch.arange(x.shape[0])[:, None], torch.arange(8)[None]][..., None], x, 0.0).mean(1),
    lambda x, keep: (x * keep[..., None]).mean(1),
])
def test_masks_of_tokens(known, weights):
    assert quality(Masked(weights), (IDS, KEEP)) > known - 3


def test_constants_of_the_batch_hold_for_every_batch():
    net = Tokens(lambda net, ids: net.kept.expand(ids.shape[0], -1)).eval()
    quantized = fb.quantize(net, IDS[:4], [IDS])
    for count in (1, 3, 16):
        assert torch.equal(quantized(IDS[:count]), quantized(IDS)[:count])


def test_a_look_up_beyond_its_table_is_one_sentence():
    table = torch.tensor([0, 0, 1, 1])
    net = Tokens(lambda net, ids: table[ids % 4]).eval()
    assert quality(net, IDS) > 25
    beyond = fb.quantize(Tokens(lambda net, ids: table[ids]).eval(), IDS % 4, [IDS % 4])
    with pytest.raises(ProgramError, match=r"looks up numbers -?\d+ to \d+ in a table of 4"):
        reference.run(beyond.program, {"ids": IDS.numpy()})


def test_bytes_are_divided_inside_the_network():
    class Bytes(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv((x / 255 - 0.5) / 0.25)

    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert quality(Bytes(), images) > 30


def test_a_constant_first_state_of_the_whole_batch_costs_nothing():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.line = nn.Parameter(torch.randn(1, 1, 16)), nn.Linear(16, 4)

        def forward(self, x):
            return self.line(torch.cat([self.first.expand(x.shape[0], -1, -1), x, torch.zeros(x.shape[0], 1, 16)], 1))

    assert quality(First(), torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(0))) > 30
