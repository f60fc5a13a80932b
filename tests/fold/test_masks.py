"""Attention masks: wherever they stand, the scores keep their own range, and hidden places have no share."""

import math

import pytest
import torch
from tests.called import Call
from torch import nn

import fewbits as fb
from fewbits.errors import StretchWarning
from fewbits.graph.functions import masked_softmax
from fewbits.report.engines import agreement

X = torch.randn(16, 7, 16, generator=torch.Generator().manual_seed(0))
CAUSAL = torch.ones(7, 7).triu(1).bool()
KEEP = torch.ones(16, 7)
KEEP[1::2, 4:] = 0


class Attention(nn.Module):
    """Two heads; `masked` puts the mask into the scores [N, 2, 7, 7]."""

    def __init__(self, masked):
        super().__init__()
        torch.manual_seed(3)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.bias = nn.Parameter(torch.randn(7, 7) * 0.3)
        self.register_buffer("hidden", CAUSAL)
        self.masked = masked

    def forward(self, x, *keep):
        q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = self.masked(self, q @ k.transpose(-1, -2) * 8**-0.5, *keep)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def decibels(right, got):
    return float(10 * torch.log10(right.double().square().sum() / (right.double() - got.double()).square().sum()))


def same_everywhere(program, example):
    """Whether every engine gives the reference's values where that is promised."""
    rows = agreement(program, [example], every_value=True)
    return not [row for row in rows if row.exact and row.differing]


def quality(net, example):
    """The same program on every engine, and its signal to noise ratio."""
    net = net.eval()
    given = example if isinstance(example, tuple) else (example,)
    quantized = fb.quantize(net, example, [example])
    assert same_everywhere(quantized.program, example)
    assert not quantized.program.has_islands
    with torch.no_grad():
        return decibels(net(*given), quantized(*given))


def added(value):
    return torch.zeros(7, 7).masked_fill(CAUSAL, value)


@pytest.fixture(scope="module")
def known():
    """With the mask right in front of softmax and far below."""
    return quality(Attention(lambda net, scores: scores + net.bias + added(-1e4)), X)


@pytest.mark.parametrize("value", [-100.0, -1e9])
@pytest.mark.parametrize("masked", [
    lambda net, scores, value: ((scores + net.bias).view(-1, 1, 2, 7, 7) + added(value)).view(-1, 2, 7, 7),
    lambda net, scores, value: scores + added(value) + net.bias,
    lambda net, scores, value: ((scores + net.bias) * 0.5 + added(value)) * 2.0,
    lambda net, scores, value: scores.masked_fill(net.hidden, value) + net.bias,
    lambda net, scores, value: (scores + net.bias).masked_fill(net.hidden, value).clamp(min=-1e5),
    lambda net, scores, value: torch.where(net.hidden, value, scores + net.bias),
    lambda net, scores, value: torch.where(~net.hidden, scores + net.bias, value),
], ids=["behind a reshape", "before a bias", "scaled", "filled", "bounded", "where", "where not"])
def test_a_mask_keeps_the_range_of_the_scores(known, masked, value):
    assert quality(Attention(lambda net, scores: masked(net, scores, value)), X) > known - 1


def test_a_mask_is_taken_away_as_well():
    net = Attention(lambda net, scores, keep: scores - (1 - keep[:, None, None, :]) * 1e4)
    assert quality(net, (X, KEEP)) > 30


def test_a_mask_that_is_not_understood_draws_a_warning_that_names_the_tensor():
    net = Attention(lambda net, scores: scores + torch.round(scores.detach().sigmoid()) * 1e4 - 1e4)
    with pytest.warns(StretchWarning, match=r"few numbers far from all others stretch the range of '\w+"):
        fb.quantize(net.eval(), X, [X])


@pytest.mark.filterwarnings("error::fewbits.errors.StretchWarning")
def test_a_mask_that_is_understood_draws_none():
    net = Attention(lambda net, scores, keep: scores + (1 - keep[:, None, None, :]) * -1e9)
    fb.quantize(net.eval(), (X, KEEP), [(X, KEEP)])


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
@pytest.mark.parametrize("value", [-100.0, torch.finfo(torch.float32).min])
def test_a_mask_is_an_input(kind, value):
    net = Attention(lambda net, scores, keep: scores + (1 - keep[:, None, None, :]) * value)
    everything = quality(net, (X, torch.ones_like(KEEP).to(kind)))
    assert quality(net, (X, KEEP.to(kind))) > everything - 3


def test_hidden_places_move_no_code_of_the_others():
    """Whatever stands at a hidden place, the others attend to nothing of it."""
    net = Attention(lambda net, scores, keep: scores.masked_fill(~keep[:, None, None, :], -1e9)).eval()
    keep = KEEP.bool()
    quantized = fb.quantize(net, (X, keep), [(X, keep)])
    other = torch.where(keep[..., None], X, X.flip(0))
    first, second = quantized.codes(X, keep), quantized.codes(other, keep)
    assert torch.equal(first[keep], second[keep]) and not torch.equal(first, second)


@pytest.mark.parametrize("value", [-1e4, -1e6, -1e9])
@pytest.mark.parametrize("fill", [False, True])
def test_a_row_hidden_everywhere_stays_what_the_network_makes_of_it(fill, value):
    hidden = torch.zeros(7, 7).bool()
    hidden[0], hidden[1, 3:] = True, True
    net = Attention(lambda net, scores: scores.masked_fill(hidden, value) if fill else scores + hidden * value).eval()
    folded = fb.fold(fb.capture(net, X))
    with torch.no_grad():
        torch.testing.assert_close(folded(X), net(X), rtol=0, atol=1e-6)
    assert quality(net, X) > 25


def test_numbers_that_hide_nothing_stay_numbers():
    net = Attention(lambda net, scores: scores + torch.where(CAUSAL, -3.0, 0.0))
    assert not any(node.target is masked_softmax for node in fb.fold(fb.capture(net.eval(), X)).graph.nodes)


@pytest.mark.parametrize("empty", ["zero", "uniform", "scores"])
def test_rows_in_which_nothing_is_seen(empty):
    x = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    mask = torch.tensor([[True, False], [False, False]])
    right = {"zero": [0.0, 0.0], "uniform": [0.5, 0.5], "scores": [0.25, 0.75]}[empty]
    torch.testing.assert_close(masked_softmax(x, mask, 1.0, empty), torch.tensor([[1.0, 0.0], right]))


@pytest.mark.parametrize("mask", [
    torch.ones(7, 7).tril().bool(), torch.full((7, 7), -torch.inf).triu(1), added(-1e4) + 0.25])
def test_attention_takes_masks_of_every_kind(mask):
    def attend(x):
        q, k, v = (x.unflatten(-1, (2, 8)).transpose(1, 2) for _ in range(3))
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    assert quality(Call(attend), X) > 25


def test_a_mask_buffer_of_minus_infinity_is_sound():
    net = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = net
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(7))

        def forward(self, x):
            return self.layer(x, src_mask=self.mask)

    assert quality(Masked(), X) > 25
