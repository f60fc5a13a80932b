"""The source documents' own numbers: codes exactly, reals within 1e-6."""

import pytest
import torch
from quantizers import activation_quantizer, gradient, weight_quantizer

from fewbits.numerics.formats import parse
from fewbits.quant.fake_quantize import fake_nearest
from fewbits.train.binary_connect import hard_sigmoid, sign
from fewbits.train.dorefa import quantized_gradient
from fewbits.train.lab_quantizer import step_of
from fewbits.train.ttq import ternary_of, trained_ternary
from fewbits.train.twn import exact_thresholds
from fewbits.train.xnor import magnitude, scaling_map

MATRICES = ["W_A", "W_B"]


def close(got, expected):
    torch.testing.assert_close(torch.as_tensor(got, dtype=torch.float64),
                               torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-7)


@pytest.fixture(params=MATRICES)
def matrix(request, golden):
    section = golden("low_bit_methods")[request.param]
    return torch.tensor(section["input"]), section


def test_binary_connect(matrix):
    weight, expected = matrix
    quantizer = weight_quantizer("binary-connect", "binary", weight)
    assert torch.equal(quantizer(weight).detach(), torch.tensor(expected["binaryconnect_det"]["Wb"]).float())
    close(hard_sigmoid(weight), expected["binaryconnect_det"]["hard_sigmoid"])


def test_binary_weights(matrix):
    weight, expected = matrix
    for name, per_channel in (("bwn_per_tensor", False), ("bwn_per_row_filter", True)):
        quantizer = weight_quantizer("bwn", "binary", weight, per_channel)
        close(quantizer(weight).detach(), expected[name]["W"])
        close(quantizer.scale.flatten().squeeze(), expected[name]["alpha"])


@pytest.mark.parametrize(("method", "name"), [("twn", "twn_0.7"), ("twn-0.75", "twn_0.75")])
def test_ternary_weights(matrix, method, name):
    weight, expected = matrix
    quantizer = weight_quantizer(method, "ternary", weight)
    got = quantizer(weight).detach()
    assert quantizer.integers(weight.numpy()).codes.tolist() == expected[name]["T"]
    close(quantizer.scale, expected[name]["alpha"])
    close((weight - got).double().square().sum(), expected[name]["sse"])


def test_the_exact_ternary_threshold(matrix):
    weight, expected = matrix
    quantizer = weight_quantizer("twn-exact", "ternary", weight)
    wanted = expected["twn_exact_search"]
    got = quantizer(weight).detach()
    assert int((got != 0).sum()) == wanted["nonzeros"]
    close(quantizer.scale, wanted["alpha"])
    close((weight - got).double().square().sum(), wanted["sse"])
    low = wanted["Delta_any_in"][0]
    above = weight.abs()[weight.abs() > low].min()
    assert low <= exact_thresholds(weight, quantizer).item() < above


def test_trained_ternary(matrix):
    weight, expected = matrix
    wanted = expected["ttq_t0.05"]
    assert torch.equal(ternary_of(weight).int(), torch.tensor(wanted["T"], dtype=torch.int32))
    negative, positive = (torch.tensor(wanted[key], requires_grad=True) for key in ("Wn", "Wp"))
    got, latent = gradient(lambda w: trained_ternary(w, ternary_of(w.detach()), negative, positive), weight,
                           wanted["upstream_grad"])
    close(got, wanted["W_t"])
    close(latent, wanted["dlatent"])
    close(positive.grad, wanted["dWp"])
    close(negative.grad, wanted["dWn_true_autodiff"])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_dorefa_weights(matrix, bits):
    weight, expected = matrix
    quantizer = weight_quantizer("dorefa", f"int{bits}" if bits > 1 else "binary", weight)
    close(quantizer(weight).detach(), expected[f"dorefa_w{bits}"]["W"])
    codes, scale = quantizer.codes_and_scale(weight)  # what is stored, beside what is trained with
    close(codes * scale, expected[f"dorefa_w{bits}"]["W"])


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_learned_steps(matrix, bits):
    weight, expected = matrix
    wanted = expected[f"lsq_{bits}bit"]
    weight = weight.double()  # its derivative is a small difference of large numbers
    quantizer = weight_quantizer("lsq-paper", f"int{bits}", weight).double()
    close(quantizer(weight).detach(), wanted["v_hat"])
    close(quantizer.scale.detach(), wanted["s_init"])
    assert quantizer.integers(weight.numpy()).codes.tolist() == wanted["vbar"]
    for row, column in torch.cartesian_prod(torch.arange(4), torch.arange(4)).tolist():
        quantizer.factor.grad = None
        quantizer(weight)[row, column].backward()
        close(quantizer.factor.grad * quantizer.unit / wanted["grad_scale"], wanted["dvhat_ds"][row][column])


def test_dorefa_activations_and_gradients(golden):
    section = golden("low_bit_methods")
    x = torch.tensor(section["dorefa_act"]["x"], dtype=torch.float64)
    for bits in (1, 2, 4):
        quantizer = activation_quantizer("dorefa", f"uint{bits}").double()
        quantizer.scale.fill_(1 / (2**bits - 1))
        close(quantizer(x), section["dorefa_act"][f"k{bits}"])
    for bits in (2, 4):
        wanted = section[f"dorefa_grad_k{bits}_noise0"]
        given = torch.tensor([wanted["dr"]], dtype=torch.float64)
        close(quantized_gradient(given, bits, torch.zeros_like(given))[0], wanted["q"])


def test_binary_activations(golden):
    section = golden("low_bit_methods")["bnn_sign_ste"]
    x = torch.tensor(section["x"])
    got, mask = gradient(lambda v: fake_nearest(v, torch.ones(()), parse("binary")), x)
    assert got.tolist() == section["sign_bnn(x>=0 -> +1)"] == sign(x).tolist()
    assert mask.tolist() == section["grad_mask_|x|<=1"]


@pytest.mark.parametrize("bits", [2, 4])
def test_clipped_activations(golden, bits):
    section = golden("low_bit_methods")["pact_alpha1.5"]
    x = torch.tensor(section["x"])
    quantizer = activation_quantizer("pact", f"uint{bits}")
    with torch.no_grad():
        quantizer.bound.fill_(1.5)
    close(quantizer(x).detach(), section[f"yq_{bits}bit"])
    for place, wanted in enumerate(section["dy_dalpha"]):
        quantizer.bound.grad = None
        quantizer(x)[place].backward()
        assert quantizer.bound.grad.item() == wanted


def test_scaling_factors_of_activations(golden):
    section = golden("low_bit_methods")["xnor_K"]
    x = torch.tensor(section["X_1channel"])[None, None]
    close(scaling_map(magnitude(x), (2, 2))[0, 0], section["K"])


@pytest.mark.parametrize("name", ["quantizer_bits8_alpha1", "quantizer_bits4_alpha1", "quantizer_bits4_alpha2"])
def test_the_labs_quantizer(golden, name):
    section = golden("seed004_quantizer")[name]
    bits, alpha = section["bits"], section["alpha"]
    close(step_of(torch.tensor(alpha), bits, False, "document"), section["step"])
    for kind, format in (("signed", f"int{bits}"), ("always_pos", f"uint{bits}")):
        quantizer = activation_quantizer("lab", format)
        quantizer(torch.tensor([alpha, -alpha / 2 if kind == "signed" else 0.0]))  # the first batch fixes alpha
        wanted, x = section[kind], torch.tensor(section[kind]["x"])
        close(quantizer(x), wanted["q_x"])
        lab_offset = 2 ** (bits - 1) if kind == "always_pos" else 0
        codes = quantizer.encoding.encode(x.numpy()).codes.astype(int) - lab_offset
        assert codes.tolist() == wanted["codes"]
        assert "started" in quantizer.state_dict()


def test_the_labs_efficient_range(golden):
    section = golden("seed004_quantizer")["uint8_off0_alpha1"]
    quantizer = activation_quantizer("lab-efficient", "uint8")
    quantizer(torch.tensor([section["alpha"], 0.0]))
    close(quantizer.scale, section["s"])
    x = torch.tensor(section["x"])
    assert quantizer.encoding.encode(x.numpy()).codes.tolist() == section["codes"]
    close(quantizer(x), section["q_x"])


def test_the_labs_four_bit_example(golden):
    section = golden("seed004_quantizer")["int4_s0.5_off0"]
    quantizer = activation_quantizer("lab", "int4")
    quantizer(torch.tensor([4.0]))
    x = torch.tensor(section["x"])
    assert quantizer.encoding.encode(x.numpy()).codes.tolist() == section["codes_rne"]
    assert quantizer(x).tolist() == section["q_x_rne"]
