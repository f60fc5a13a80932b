"""Transformers with masks as inputs: ranges and padding, and the same networks by parts."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fewbits as fb
from fewbits.errors import PaddingWarning

WIDTH, HEADS, LONGEST = 16, 2, 6


class Block(nn.Module):
    """kind: `bert` (norms behind, a mask added to the scores), `gpt2` (norms in front, a causal buffer), `vit` (norms
    in front, no mask, torch's fused attention)."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.mix, self.project = kind, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("causal", torch.ones(LONGEST, LONGEST, dtype=torch.bool).tril())

    def attend(self, x, mask=None):
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in self.mix(x).chunk(3, 2))
        if self.kind == "vit":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
            if mask is not None:
                scores = scores + mask
            if self.kind == "gpt2":
                scores = scores.masked_fill(~self.causal, -torch.inf)
            mixed = scores.softmax(-1) @ v
        return self.project(mixed.transpose(1, 2).flatten(2))

    def forward(self, x, mask=None):
        first, second = self.norms
        if self.kind == "bert":
            x = first(x + self.attend(x, mask))
            return second(x + self.narrow(F.gelu(self.wide(x))))
        x = x + self.attend(first(x), mask)
        return x + self.narrow(F.gelu(self.wide(second(x))))


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, WIDTH), nn.Embedding(LONGEST, WIDTH)
        self.blocks = nn.ModuleList(Block("bert") for _ in range(2))

    def forward(self, tokens, keep):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        mask = (1.0 - keep[:, None, None].to(x.dtype)) * -10000.0
        for block in self.blocks:
            x = block(x, mask=mask)
        return x


class Gpt2(nn.Module):
    """What comes next is chosen by code that is no graph."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(20, WIDTH), nn.Linear(WIDTH, 20)
        self.blocks = nn.Sequential(*(Block("gpt2") for _ in range(2)))

    def forward(self, tokens):
        scores = self.head(self.blocks(self.words(tokens)))
        return [row[:int((row.argmax(-1) == 0).sum()) + 1] for row in scores]


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.blocks = nn.ModuleList(Block("vit") for _ in range(2))

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        for block in self.blocks:
            x = block(x)
        return x[:, 0]


def tokens(seed=0):
    return torch.randint(20, (4, LONGEST), generator=torch.Generator().manual_seed(seed))


KEEP = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6, [1] * 5 + [0]])
NETWORKS = {
    "bert": lambda: (Bert(), (tokens(), KEEP), ["blocks.0", "blocks.1"]),
    "gpt2": lambda: (Gpt2(), tokens(), ["blocks", "head"]),
    "gpt2 by block": lambda: (Gpt2(), tokens(), ["words", "blocks.0", "blocks.1", "head"]),
    "vit": lambda: (Vit(), torch.randn(4, 3, 8, 8), ["patches", "blocks.0", "blocks.1"]),
}


def made(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, example, parts = NETWORKS[name]()
        return net.eval(), example, parts


def called(net, example):
    return net(*example) if isinstance(example, tuple) else net(example)


@pytest.mark.parametrize("recipe", ["w8a8", "w8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_transformers_go_by_parts(name, recipe):
    net, example, parts = made(name)
    whole = fb.capture(net, example, parts=parts)
    programs = {}
    for part, model in whole.parts.items():
        folded = fb.fold(model)
        programs[part] = fb.lower(fb.calibrate(folded, fb.plan(folded, recipe), whole.batches(part, [example])))
    with torch.no_grad():
        wanted, got = called(net, example), called(whole.replaced(programs), example)
    for one, other in zip(wanted, got, strict=True):
        assert one.shape == other.shape
        assert 10 * torch.log10(one.square().sum() / (one - other).square().sum()) > 25
    for part, program in programs.items() if recipe == "w8a8" else ():
        for batch in whole.batches(part, [example]):
            given = batch if isinstance(batch, tuple) else (batch,)
            assert all(torch.equal(one, other) for one, other in zip(
                flat(fb.QuantizedModel(program.program, "reference").codes(*given)), flat(program.codes(*given)),
                strict=True))


def flat(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else [leaf for each in outputs for leaf in flat(each)]


def codes_beside(recipe, other):
    """Whether codes of the seen places stay, when other numbers stand at the hidden ones."""
    net, example, _ = made("bert")
    program = fb.lower(fb.calibrate(model := fb.fold(fb.capture(net, example)), fb.plan(model, recipe), [example]))
    hidden = torch.where(KEEP.bool(), example[0], other)
    seen = KEEP.bool()
    return torch.equal(program.codes(*example)[seen], program.codes(hidden, KEEP)[seen])


@pytest.mark.parametrize("recipe", ["w8a8", "default-w8a8"])
def test_padding_moves_no_code_under_ranges_from_calibration(recipe):
    net, example, _ = made("bert")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PaddingWarning)
        fb.plan(fb.fold(fb.capture(net, example)), recipe)
    if recipe == "w8a8":
        assert all(codes_beside(recipe, other) for other in (0, 7, 19))


def test_dynamic_ranges_say_that_padding_moves_codes():
    sentence = (r"'blocks\.0\.mix\.input' and \d+ more take their ranges at run time .* 'keep' hides among them: "
                r"padding moves .*default-w8a8")
    with pytest.warns(PaddingWarning, match=sentence):
        moved = [codes_beside("dynamic-w8a8", other) for other in (0, 7, 19)]
    assert not all(moved), "or the warning is none"


@pytest.mark.parametrize("name", ["vit", "gpt2 by block"])
def test_a_network_without_such_an_input_is_not_warned(name):
    net, example, _ = made(name)
    block = "blocks.0"
    model = fb.capture(net, example) if name == "vit" else fb.capture(net, example, parts=[block]).parts[block]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PaddingWarning)
        fb.plan(fb.fold(model), "dynamic-w8a8")
