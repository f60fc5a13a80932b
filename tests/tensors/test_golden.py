"""The source documents' own numbers by the public functions of one tensor: codes exactly, reals within 1e-6."""

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.numerics.encoding import Quantized
from fewbits.ranges.kl import divergence


def close(got, wanted):
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(wanted, np.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "bits"), [("exact_S_2bit", 2), ("exact_S_3bit", 3), ("exact_S_4bit", 4),
                                            ("exact_S_8bit", 8)])
@pytest.mark.parametrize("make", [np.array, torch.tensor, list])
def test_affine_4x4(golden, name, bits, make):
    section = golden("affine_4x4")
    wanted, x = section[name], make(section["input"])
    q = fb.linear_quantize(x, bits)
    assert q.codes.tolist() == wanted["q"]
    assert int(q.encoding.zero_point) == wanted["Z"]
    close(q.encoding.scale, wanted["S"])
    close(q.dequantize(), wanted["dequant"])
    error = q.error(x)
    close([error.sse, error.mse, error.largest], [wanted["sse"], wanted["mse"], wanted["max_abs_err"]])
    scale, zero = fb.scale_and_zero_point(x, bits)
    assert scale == pytest.approx(wanted["S"], rel=1e-6 if isinstance(x, torch.Tensor) else 1e-12)
    assert zero == wanted["Z"]


def test_the_printed_scale(golden):
    section = golden("affine_4x4")
    wanted = section["printed_S_1.07_2bit"]
    q = fb.linear_quantize(section["input"], 2, scale=1.07, zero_point=-1)
    assert q.codes.tolist() == wanted["q"]
    close(q.dequantize(), wanted["dequant"])


def test_the_labs_own_test(golden):
    section = golden("mit_lab_linear_quantize")
    q = fb.linear_quantize(section["tensor"], section["bits"])
    assert q.codes.tolist() == section["q"]
    close(q.encoding.scale, section["S"])
    assert int(q.encoding.zero_point) == section["Z"]


def test_ranges_without_zero(golden):
    wanted = golden("integer_dot")["x_range_without_zero"]
    scale, zero = fb.scale_and_zero_point([0.1, 0.2, 0.7, 1.3], 8, include_zero=False)
    close(scale, wanted["S"])
    assert int(zero) == wanted["Z_clamped"]


def test_an_integer_dot_product(golden):
    section = golden("integer_dot")
    w, x = (fb.linear_quantize([section[name]], 8) for name in ("w", "x"))
    assert w.codes[0].tolist() == section["q_W"]
    assert x.codes[0].tolist() == section["q_X"]
    output = fb.linear_quantize([0.0], 8, scale=section["S_Y"], zero_point=section["Z_Y"]).encoding
    product = fb.quantized_linear(x, w, None, output)
    terms = section["terms"]
    assert int(product.terms.products.item()) == terms["qw_qx"]
    assert int(product.terms.of_weight_zero.item()) == terms["Zw_sum_qx"]
    assert int(product.terms.of_input_zero.item()) == terms["Zx_sum_qw"]
    assert int(product.terms.of_both.item()) == terms["d_Zw_Zx"]
    assert product.accumulator.item() == section["accumulator_int32"]
    assert product.codes.item() == section["q_Y"]
    close(product.dequantize().item(), section["y_dequant"])


def test_a_fully_connected_layer(golden):
    section = golden("quantized_linear_mit_lab")
    x = fb.linear_quantize(section["input"], 2, include_zero=False)
    weight = fb.linear_quantize(section["weight"], 2, symmetric=True, block="channel")
    assert weight.codes.tolist() == section["q_weight"]
    assert x.codes.tolist() == section["q_input"]
    output = fb.linear_quantize(section["y_float"], 2).encoding
    close([x.encoding.scale, output.scale], [section["input_scale"], section["output_scale"]])
    product = fb.quantized_linear(x, weight, section["bias"], output)
    assert product.bias.tolist() == section["q_b"]
    assert product.q_bias.tolist() == section["q_bias_shifted"]
    assert product.accumulator.tolist() == section["acc_int32"]
    assert product.codes.tolist() == section["q_output"]
    close(product.multiplier, section["multiplier_M"])


def codes_of(encoding, codes):
    return Quantized(np.array(codes, encoding.format.dtype), encoding)


def test_a_convolution_pads_with_the_zero_point(golden):
    section = golden("quantized_conv")
    grid = fb.linear_quantize(section["x"], 8).encoding
    x = codes_of(grid, np.array(section["q_X"])[None, None])
    grid = fb.linear_quantize(section["w"], 8, symmetric=True).encoding
    weight = codes_of(grid, np.array(section["q_W"])[None, None])
    output = fb.linear_quantize([0.0], 8, scale=section["S_Y"], zero_point=section["Z_Y"]).encoding
    bias = section["q_b"] * section["S_X"] * section["S_W"]
    product = fb.quantized_conv2d(x, weight, [bias], output, padding=section["padding"])
    assert product.accumulator[0, 0].tolist() == section["acc_pad_ZX"]
    assert product.codes[0, 0].tolist() == section["q_Y_pad_ZX"]
    assert product.q_bias.tolist() == [section["q_bias"]]


def test_a_convolution_of_many_channels(golden):
    section = golden("quantized_conv")["multichannel"]
    x = fb.linear_quantize(section["x"], 8)
    weight = fb.linear_quantize(section["w"], 8, symmetric=True, block="channel")
    assert x.codes.tolist() == section["q_X"]
    assert weight.codes.tolist() == section["q_W"]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_four_terms_make_the_sums(padding, symmetric):
    """Against torch in float64, zero points taken off first; both with padding and with weights of a zero point."""
    rng = np.random.default_rng(0)
    x = fb.linear_quantize(rng.normal(0.3, 1, (2, 4, 5, 6)), 8)
    weight = fb.linear_quantize(rng.normal(0.2, 1, (6, 2, 3, 3)), 4, symmetric=symmetric, block="channel")
    output = fb.linear_quantize([-20.0, 20.0], 8).encoding
    product = fb.quantized_conv2d(x, weight, None, output, padding=padding, groups=2)
    centred = [torch.from_numpy((q.codes.astype(np.int64) - q.encoding.zero_point.reshape(-1, *[1] * 3)).astype(float))
               for q in (x, weight)]
    wanted = torch.nn.functional.conv2d(*centred, padding=padding, groups=2).numpy()
    terms = product.terms
    assert np.array_equal(product.accumulator, wanted)
    if symmetric:
        assert np.array_equal(terms.products + product.q_bias.reshape(-1, 1, 1), wanted)
    assert np.array_equal(terms.products - terms.of_weight_zero - terms.of_input_zero + terms.of_both, wanted)


def test_folding_a_batch_norm(golden):
    section = golden("bn_fusion")
    w = torch.tensor(section["w"])
    layer, norm = nn.Linear(w.shape[1], len(w)), nn.BatchNorm1d(len(w), eps=section["eps"]).eval()
    with torch.no_grad():
        layer.weight.copy_(w)
        layer.bias.copy_(torch.tensor(section["b"]))
        norm.weight.copy_(torch.tensor(section["gamma"]))
        norm.bias.copy_(torch.tensor(section["beta"]))
        norm.running_mean.copy_(torch.tensor(section["mean"]))
        norm.running_var.copy_(torch.tensor(section["var"]))
    folded = fb.fold_batch_norm(layer, norm)
    close(folded.weight.detach(), section["w_fused"])
    close(folded.bias.detach(), section["b_fused"])
    assert layer.bias is not folded.bias


def test_kmeans_4x4(golden):
    section = golden("kmeans_4x4")
    book = fb.kmeans_quantize(section["input"], 2)
    assert book.centroids[1] == 0.0, "exactly"
    close(book.centroids, [section["centroids_by_index"][str(i)] for i in range(4)])
    assert book.labels.tolist() == section["labels"]
    close(book.decode(), section["reconstructed"])
    close(book.error(section["input"]), section["wcss"])
    step = section["codebook_training"]
    close(book.step(step["gradient"], step["lr"]).centroids, step["new_centroids"])
    refresh = section["lab7_centroid_refresh"]
    close(book.refresh(refresh["weights_after_step"]).centroids, refresh["new_centroids"])
    for start in ("linear", "density"):
        found = fb.kmeans_quantize(torch.tensor(section["input"]), 2, start=start)
        assert found.centroids[1] == 0.0
        close(found.error(section["input"]), section["wcss"])


@pytest.mark.parametrize("name", ["W_A_bw8", "X_A_bw8", "W_A_bw4", "X_A_bw4", "W_A_bw2", "X_A_bw2"])
def test_dynamic_fixed_point(golden, name):
    section = golden("dynamic_fixed_point")
    wanted, tensor = section[name], name[:3]
    q = fb.dynamic_fixed_point(section[tensor], wanted["bw"],
                               role="weights" if tensor == "W_A" else "activations")
    assert q.codes.tolist() == wanted["codes"]
    assert float(q.encoding.scale) == 2.0 ** -wanted["fl"]
    close(q.dequantize(), wanted["q"])


def test_static_fixed_point(golden):
    section = golden("dynamic_fixed_point")
    close(fb.dynamic_fixed_point(section["W_A"], 8, fraction=4).dequantize(), section["static_Q4.4_of_W_A"])


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_minifloat(golden, name):
    section = golden("minifloat_ristretto")[name]
    close(fb.minifloat(section["x"], section["exp_bits"], section["mant_bits"]), section["q"])


@pytest.mark.parametrize("name", ["quantizer_bits8_alpha1", "quantizer_bits4_alpha1", "quantizer_bits4_alpha2"])
def test_the_labs_quantizer(golden, name):
    section = golden("seed004_quantizer")[name]
    for kind, always_pos in (("signed", False), ("always_pos", True)):
        quantizer, wanted = fb.Quantizer(section["bits"], always_pos=always_pos), section[kind]
        quantizer(torch.tensor([section["alpha"]]))
        close(quantizer.step, section["step"])
        close(quantizer(torch.tensor(wanted["x"])), wanted["q_x"])


def test_the_gradient_of_the_labs_quantizer(golden):
    """Of the rounding the identity's, of the clip its own."""
    section = golden("seed004_quantizer")["int4_s0.5_off0"]
    quantizer, x = fb.Quantizer(4), torch.tensor(section["x"], requires_grad=True)
    quantizer(torch.tensor([4.0]))
    y = quantizer(x)
    close(y.detach(), section["q_x_rne"])
    y.sum().backward()
    assert x.grad.tolist() == section["grad_exact"]


def test_a_huffman_code(golden):
    section = golden("deep_compression_coding")["kmeans_4x4_labels"]
    code = fb.huffman(golden("kmeans_4x4")["labels"])
    assert code.bits == section["total_bits"]
    close(code.average, section["avg_bits"])
    close(code.entropy / 16, section["entropy_bits"])
    assert sorted(map(len, code.codes.values())) == section["sorted_code_lengths"]


def test_a_kl_threshold(golden):
    section = golden("tensorrt_kl")
    counts = section["slide_example"]["P"]
    curve = fb.kl_threshold([*counts, 1], levels=section["slide_example"]["levels"])
    wanted = [divergence(np.array([*counts, 1.0]), int(m), section["slide_example"]["levels"]) for m in curve.bins]
    close(curve.divergence, wanted)
    assert curve.chosen.divergence == min(wanted)


def test_the_costs():
    """The lecture's 30 and 18.5 times."""
    table = fb.costs()
    assert table.operations["add fp32"].pJ[0] / table.operations["add int8"].pJ[0] == pytest.approx(30)
    assert table.operations["multiply fp32"].pJ[0] / table.operations["multiply int8"].pJ[0] == pytest.approx(18.5)
