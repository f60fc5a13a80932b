"""Operators one by one: that their tables, masks, moves and decompositions are the float functions they stand for, and
that no engine differs; inputs that are row numbers; any batch, any number of threads."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from called import Call
from fewbits.artifact.file import read
from fewbits.artifact.save import save_verified
from fewbits.artifact.verify import verify
from fewbits.capture.capture import capture
from fewbits.engines.exactness import portable_nodes
from fewbits.engines.executable import Executable
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.processor import this_processor
from fewbits.errors import DataError, ProgramError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.engines import agreement
from fewbits.testing import random_network
from fewbits.writers.onnx.program import onnx_bytes, output_name


def lowered(net, *batches, recipe="w8a8"):
    model = fold(capture(net.eval(), batches[0]))
    return lower(calibrate(model, plan(model, recipe), batches))


def steps_off(program, net, x) -> float:
    """Largest distance from the float function, in steps of the output's grid."""
    name = program.outputs[0]
    real = Executable(program)(x)
    return float(((real - net(x)).abs() / float(program.encoding(name).scale)).max())


def assert_engines_agree(program, batch):
    for row in agreement(program, [batch], every_value=True):
        assert not (row.exact and row.differing), str(row)


FUNCTIONS = {
    "mul": lambda x: x * 1.7, "div": lambda x: x / 3.0, "sub": lambda x: x - 0.3, "add": lambda x: x + 0.3,
    "square": lambda x: x**2, "rsub": lambda x: 1 - x, "relu6 alone": F.relu6, "clamp": lambda x: x.clamp(-0.5, 0.7),
}
"""As they are written; those of a row each are in tests/program/test_unary.py."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_number(name):
    """Within half a step of the function of the dequantized input, for every input code."""
    x = torch.linspace(-4, 4, 512).reshape(2, 256)
    net = Call(FUNCTIONS[name])
    program = lowered(net, x)
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256)
    real = program.encoding("x.codes").decode(codes)
    expected = FUNCTIONS[name](torch.from_numpy(real).double()).numpy()
    result = reference.run(program, {"x": real})[program.outputs[0]]
    y = program.encoding(program.outputs[0])
    low, high = (y.decode(np.array(code)) for code in (y.format.low, y.format.high))
    tolerance = 0.5 if name != "add" else 1.0  # a sum with a constant rounds the constant too
    assert np.abs(y.decode(result) - expected.clip(low, high)).max() <= (tolerance + 1e-4) * y.scale
    assert_engines_agree(program, x)


def test_a_mean_over_results_that_are_stacked_before_the_batch():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return torch.stack([self.one(x), self.other(x)]).mean(0)

    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    program = lowered(Two(), x)
    assert any(isinstance(node, op.Mean) for node in program.nodes)
    assert_engines_agree(program, x)


def test_prelu_per_channel():
    net = nn.PReLU(3)
    net.weight.data = torch.tensor([0.1, -0.5, 2.0])
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    program = lowered(net, x)
    table = next(node for node in program.nodes if isinstance(node, op.Table))
    assert table.table.shape == (3, 256)
    assert steps_off(program, net, x) < 3
    assert_engines_agree(program, x)


MOVES = {
    "pixel shuffle": (nn.PixelShuffle(2), (3, 8, 3, 5)),
    "channel shuffle": (nn.ChannelShuffle(2), (3, 4, 3, 5)),
    "nearest": (nn.Upsample(scale_factor=3), (2, 3, 4, 5)),
    "nearest to a size": (nn.Upsample(size=(7, 3)), (2, 3, 4, 5)),
    "expand": (Call(lambda x: x.unsqueeze(2).expand(-1, -1, 4, -1)), (2, 3, 5)),
    "squeeze": (Call(lambda x: x[:, :1].squeeze(1)), (2, 3, 5)),
    "stack": (Call(lambda x: torch.stack([x, x], 2)), (2, 3, 5)),
    "unbind": (Call(lambda x: x.unbind(1)[1]), (2, 3, 5)),
    "select": (Call(lambda x: x[:, :, -1]), (2, 3, 5)),
    "max pool 1d": (nn.MaxPool1d(2), (2, 3, 6)),
    "max pool 3d": (nn.MaxPool3d(3, 2, 1, ceil_mode=True), (2, 3, 4, 6, 7)),
    "adaptive max pool": (nn.AdaptiveMaxPool2d((3, 4)), (2, 3, 7, 6)),
    "adaptive max pool 3d": (nn.AdaptiveMaxPool3d((1, 2, 3)), (2, 3, 4, 5, 7)),
    "flipped": (Call(lambda x: x.flip((1, -1))), (2, 3, 4, 5)),
    "rolled twice along an axis": (Call(lambda x: x.roll((1, 2), (-1, -1))), (2, 3, 4, 5)),
    "largest": (Call(lambda x: x.amax((1, 3))), (2, 3, 4, 5)),
    "largest of all": (Call(lambda x: x.amax((1, 2, 3), keepdim=True)), (2, 3, 4, 5)),
    "values of max": (Call(lambda x: x.max(-1)[0]), (2, 3, 4)),
    "reflected": (Call(lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect")), (2, 3, 4, 5)),
    "repeated edge": (nn.ReplicationPad2d((2, 0, 0, 3)), (2, 3, 4, 5)),
    "wrapped round": (Call(lambda x: F.pad(x, (1, 2), mode="circular")), (2, 3, 4)),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves_change_no_number(name):
    """What comes out is what went in, quantized, moved about."""
    net, shape = MOVES[name]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    program = lowered(net, x)
    entered = program.encoding("x.codes" if "x" in program.inputs else "input.codes").encode(x.numpy()).dequantize()
    assert torch.equal(Executable(program)(x), net(torch.from_numpy(entered)))
    assert_engines_agree(program, x)


NETWORKS = {
    "conv1d": (nn.Conv1d(3, 4, 3, 2, 1, groups=1), (2, 3, 9)),
    "conv3d": (nn.Conv3d(2, 4, (2, 3, 1), (1, 2, 1), (1, 0, 0)), (2, 2, 4, 5, 3)),
    "transposed 1d": (nn.ConvTranspose1d(3, 4, 4, 2, 1), (2, 3, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=1), (2, 4, 4, 5)),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 2, 3)),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), (2, 3, 4, 5)),
    "bilinear corners": (nn.Upsample(size=(7, 9), mode="bilinear", align_corners=True), (2, 3, 4, 5)),
    "matmul": (Call(lambda x: x @ x.transpose(-1, -2)), (2, 3, 4, 5)),
    "matmul broadcast": (Call(lambda x: x @ x[:, :1].transpose(-1, -2)), (2, 3, 4, 5)),
    "matmul by a parameter": (Call(lambda x, layer: x @ layer.weight, nn.Linear(4, 5)), (2, 3, 5)),
    "mul": (Call(lambda x: x * x.sigmoid()), (2, 3, 5)),
    "mul broadcast": (Call(lambda x: x * x.mean(2, keepdim=True)), (2, 3, 5)),
    "sub": (Call(lambda x: x.tanh() - x), (2, 3, 5)),
    "softmax": (nn.Softmax(-1), (2, 3, 5)),
    "softmax over channels": (nn.Softmax(1), (2, 3, 5)),
    "layer norm": (nn.LayerNorm(16), (2, 3, 16)),
    "average pool 1d": (nn.AvgPool1d(3, 2, 1), (2, 3, 9)),
    "average pool 3d": (nn.AvgPool3d(3, 2, 1, count_include_pad=False), (2, 3, 4, 6, 7)),
    "windows beyond the image": (nn.AvgPool2d(3, 2, ceil_mode=True), (2, 3, 8, 8)),
    "windows beyond the padding": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (2, 3, 8, 8)),
    "a divisor of its own": (nn.AvgPool2d(3, 2, 1, divisor_override=5), (2, 3, 8, 8)),
    "adaptive average pool": (nn.AdaptiveAvgPool2d((3, 4)), (2, 3, 7, 6)),
    "adaptive average pool, larger": (nn.AdaptiveAvgPool2d((9, 6)), (2, 3, 7, 6)),
    "adaptive average pool 1d": (nn.AdaptiveAvgPool1d(4), (2, 3, 7)),
    "adaptive average pool 3d": (nn.AdaptiveAvgPool3d((1, 2, 3)), (2, 3, 4, 5, 7)),
    "layer norm over two axes": (nn.LayerNorm((5, 6)), (2, 4, 5, 6)),
    "group norm": (nn.GroupNorm(2, 4), (2, 4, 5, 6)),
    "group norm of rows": (nn.GroupNorm(2, 8), (3, 8)),
    "instance norm": (nn.InstanceNorm1d(4, affine=True), (2, 4, 9)),
    "larger": (Call(lambda x: torch.maximum(x, x.tanh())), (2, 3, 5)),
    "smaller, broadcast": (Call(lambda x: torch.minimum(x, x.mean(2, keepdim=True))), (2, 3, 5)),
    "quotient": (Call(lambda x: x / (x.abs().sum(-1, keepdim=True) + 0.1)), (2, 3, 5)),
    "log softmax": (nn.LogSoftmax(-1), (3, 10)),
    "log softmax of many": (nn.LogSoftmax(1), (2, 1000, 2)),
    "a product added": (Call(lambda x: torch.addcmul(x, x, x.tanh(), value=0.5)), (2, 3, 5)),
    "zeros and ones": (Call(lambda x: torch.cat([torch.zeros_like(x), x, torch.ones_like(x)], 1)), (2, 3, 5)),
    "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (2, 5, 8)),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "causal": (Call(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), (2, 2, 6, 8)),
    "added mask": (Call(lambda x: ((x @ x.transpose(1, 2)) + torch.full((5, 5), -torch.inf).triu(1)).softmax(-1)),
                   (2, 5, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_operators_are_near_their_float_selves(name):
    """Logit SQNR above 25 dB, and 0 differing codes; measured from 27 dB up (encoder layer) to 60."""
    net, shape = NETWORKS[name]
    net = net.eval()
    if isinstance(net, nn.MultiheadAttention):
        attention = net
        net = Call(lambda x, layer: layer(x, x, x, need_weights=False)[0], attention).eval()
    torch.manual_seed(0)
    x = torch.randn(*shape)
    program = lowered(net, x)
    expected, actual = net(x).detach(), Executable(program)(x)
    assert expected.shape == actual.shape
    ratio = 10 * torch.log10(expected.square().sum() / (expected - actual).square().sum())
    assert ratio > 25, f"{ratio:.1f} dB"
    assert_engines_agree(program, x)


def test_windows_beyond_the_padding_count_as_torch_counts_them():
    """Every geometry of a small image, padding counted and not: what each window of ones is divided by."""
    every = itertools.product((5, 6, 7), (2, 3), (1, 2, 3), (0, 1), (True, False))
    for size, kernel, stride, padding, counted in every:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True, count_include_pad=counted)
        x = torch.ones(2, 1, size, 5)
        program = lowered(pool, x)
        node = next(node for node in program.nodes if isinstance(node, op.AveragePool))
        sums = F.avg_pool2d(F.pad(x[:1], (padding, padding + kernel) * 2), kernel, stride, divisor_override=1)
        expected = pool(x[:1])
        counts = np.broadcast_to(node.counts, expected.shape[2:])
        rows, columns = counts.shape
        np.testing.assert_allclose(sums[0, 0, :rows, :columns].numpy() / counts, expected[0, 0].numpy(), rtol=1e-6)


def test_a_divisor_of_nothing():
    """0/0 is 0, and what is more saturates by its sign: in the program as in the simulation."""
    net = Call(lambda x: x[:, :1] / x[:, 1:])
    x = torch.tensor([[1.0, 1.0], [-1.0, 2.0], [0.5, -1.0], [2.0, 0.5]])
    model = fold(capture(net, x))
    simulation = calibrate(model, plan(model, "w8a8"), [x])
    program = lower(simulation)
    given = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    y = program.encoding(program.outputs[0])
    expected = y.decode(np.array([[y.zero_point], [255], [0]], np.uint8))
    assert np.array_equal(Executable(program)(given).numpy(), expected)
    assert np.array_equal(simulation(given).numpy(), expected)
    assert_engines_agree(program, given)


def test_logarithm_of_a_softmax_code_by_code():
    """Against float64, every first number, rows of one to 2047: within half a step and 2^-10."""
    for length in (1, 2, 10, 2047):
        x = torch.full((256, length), -3.0)
        x[:, 0] = torch.linspace(-8, 8, 256)
        program = lowered(nn.LogSoftmax(-1), x)
        entered, y = program.encoding("input.codes"), program.encoding(program.outputs[0])
        real = torch.from_numpy(entered.encode(x.numpy()).dequantize()).double()
        codes = reference.run(program, {"input": x.numpy()})[program.outputs[0]]
        expected = real.log_softmax(-1).numpy().clip(*y.decode(np.array([0, 255], np.uint8)))
        assert np.abs(y.decode(codes) - expected).max() <= 0.5001 * float(y.scale) + 2.0**-10


def test_masked_positions_get_nothing():
    net, shape = NETWORKS["added mask"]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    program = lowered(net, x)
    above = torch.ones(5, 5).triu(1).bool()
    assert (Executable(program)(x)[:, above] == 0).all()


class Words(nn.Module):
    """Token and place embeddings, tied to the output."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(11, 8), nn.Embedding(6, 8)
        self.mix, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 11, bias=False)
        self.head.weight = self.token.weight

    def forward(self, tokens):
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.mix(x))


def test_embeddings_take_row_numbers(tmp_path):
    torch.manual_seed(0)
    net, tokens = Words().eval(), torch.randint(0, 11, (4, 6))
    program = lowered(net, tokens)
    assert program.values["tokens"].dtype == "int64"
    assert_engines_agree(program, tokens)
    expected, actual = net(tokens).detach(), Executable(program)(tokens)
    assert 10 * torch.log10(expected.square().sum() / (expected - actual).square().sum()) > 20
    save_verified(program, tmp_path / "words.fewbits")
    assert all(replay.differing == 0 for replay in verify(tmp_path / "words.fewbits"))
    assert torch.equal(Executable(read(tmp_path / "words.fewbits").program)(tokens), actual)
    with pytest.raises(DataError, match="is float32, but the model takes int64"):
        Executable(program)(tokens.float())
    with pytest.raises(ProgramError, match="has rows 0 to 10"):
        reference.run(program, {"tokens": np.full((1, 6), 11)})


@pytest.mark.parametrize("seed", range(300, 306))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_batch_and_threads_change_no_code(seed):
    net, example = random_network(seed)
    program = lowered(net, example)
    name, expected = program.inputs[0], reference.run(program, {program.inputs[0]: example.numpy()})
    model = onnx_bytes(program, portable=portable_nodes(program, "this", this_processor()))
    for threads in (1, 2):
        session = OnnxSession(model, threads=threads)
        for size in (1, len(example)):
            parts = [session.run({name: part.numpy()}) for part in example.split(size)]
            singles = [Executable(program).codes(part) for part in example.split(size)]
            for output in program.outputs:
                real = np.concatenate([part[output_name(output)] for part in parts])
                assert np.array_equal(real, program.encoding(output).decode(expected[output]))
            leaves = [torch.utils._pytree.tree_leaves(single)[0] for single in singles]
            first = torch.utils._pytree.tree_leaves(program.structure)[0]
            assert np.array_equal(torch.cat(leaves).numpy(), expected[first])


def test_an_empty_batch_is_refused():
    program = lowered(nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(DataError, match="is empty"):
        Executable(program)(torch.zeros(0, 3))


@pytest.mark.parametrize("format", ["uint4", "uint7", "uint2"])
def test_inputs_beyond_the_calibrated_range_saturate_at_the_formats_bounds(format):
    """QuantizeLinear saturates at those of whole bytes."""
    recipe = Recipe.model_validate({"version": 1, "weights": {"format": "int8"}, "activations": {"format": format}})
    x = torch.linspace(-1, 1, 64).reshape(4, 16)
    program = lowered(nn.Linear(16, 8), x, recipe=recipe)
    assert_engines_agree(program, 10 * x)
