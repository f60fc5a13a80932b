"""Every lab runs, its numbers are those of the golden sections, and its page in docs/labs is of its source."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from fewbits.notebook.labs import lab, labs
from fewbits.notebook.page import digest
from fewbits.notebook.percent import cells
from fewbits.notebook.run import run

NAMES = ("aimet", "eece695d", "on_device", "qat", "survey")
PAGES = Path(__file__).parents[2] / "docs/labs"
SMALL = {"aimet": {"iterations": "50"}, "eece695d": {"draws": "4", "epochs": "6"},
         "on_device": {"epochs": "5", "tuning_epochs": "1"}, "qat": {"few_bit_epochs": "3"}, "survey": {"epochs": "8"}}


def test_there_are_five():
    assert tuple(labs()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_imports_nothing_below_the_top_level(name):
    tree = ast.parse(lab(name).read_text())
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    imported += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert "fewbits" in imported
    assert not [module for module in imported if module.startswith("fewbits.")]


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_of_the_source(name):
    """`python -m fewbits.documents.labs NAME` makes it again."""
    page = (PAGES / f"{name}.html").read_text()
    assert f'content="{digest(lab(name).read_text())}"' in page
    assert page.count('<div class="picture">') >= 5
    assert not re.search(r"<script|https?://(?!www\.w3\.org/)", page)


def close(got, wanted):
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(wanted, np.float64), rtol=2e-6, atol=1e-6)


def eece695d(seen: dict, golden) -> None:
    affine, kmeans = golden("affine_4x4"), golden("kmeans_4x4")
    assert seen["W"].tolist() == affine["input"]
    assert seen["affine"].codes.tolist() == affine["exact_S_2bit"]["q"] == affine["seed_q_table"]
    close(seen["affine"].dequantize(), affine["exact_S_2bit"]["dequant"])
    close(seen["printed"].dequantize(), affine["seed_recon_table"])
    for bits in (2, 3, 4, 8):
        close(seen["by_bits"][bits], affine[f"exact_S_{bits}bit"]["mse"])
    close(seen["book"].centroids, [kmeans["centroids_by_index"][str(place)] for place in range(4)])
    assert seen["book"].labels.tolist() == kmeans["labels"]
    close(seen["book"].error(seen["W"]), kmeans["wcss"])
    close(seen["gradient"], kmeans["codebook_training"]["gradient"])
    close(seen["moved"].centroids, kmeans["codebook_training"]["new_centroids"])
    assert seen["integers"] == {bits: {kind: golden("integers")[bits][kind] for kind in seen["integers"][bits]}
                                for bits in ("2", "4", "8")}
    wanted = golden("integers")["decode_4bit"]
    assert [[code, a, b, c] for code, a, b, c in seen["decoded"]] == [
        [row["code"], row["unsigned"], row["sign_magnitude"], row["twos_complement"]] for row in wanted]
    example = golden("floating_point")["seed000_example"]
    assert (seen["example"].sign, seen["example"].exponent, seen["example"].fraction) == (
        example["sign"], example["exponent_field"], example["mantissa_field"])
    assert f"0x{seen['example'].code:08X}" == example["fp32_hex"]
    for name, key in (("fp32", "fp32"), ("bf16", "bf16"), ("tf32", "tf32"), ("fp16", "fp16"), ("e4m3", "fp8_e4m3"),
                      ("e5m2", "fp8_e5m2")):
        wanted = golden("floating_point")["formats"][key]
        assert (seen["formats"][name].largest, seen["formats"][name].smallest_normal,
                seen["formats"][name].smallest) == (wanted["max_finite"], wanted["min_normal"], wanted["min_subnormal"])


def aimet(seen: dict, golden) -> None:
    section = golden("aimet_lab")
    lecture, default = section["lecture_symmetric_4bit"], section["aimet_1_26_default_config"]
    assert seen["W"].tolist() == section["W"]
    assert seen["w_q"].codes.tolist() == lecture["W_quant"]
    assert seen["x_q"].codes.tolist() == lecture["x_quant"]
    assert seen["y_q"].tolist() == lecture["y_quant_int"]
    close(seen["scale"], lecture["s_product"])
    close(seen["by_row"].encoding.scale.ravel(), section["per_row_symmetric_4bit"]["s_W"])
    assert seen["by_row"].codes.tolist() == section["per_row_symmetric_4bit"]["W_quant"]
    for row, kind in zip(seen["aimet"], ("input_encoding_asymmetric", "weight_encoding_symmetric",
                                         "output_encoding_asymmetric"), strict=True):
        wanted = default[kind]
        close([row.minimum[0], row.maximum[0], row.delta[0], row.offset[0]],
              [wanted["min"], wanted["max"], wanted["delta"], wanted["offset"]])


def on_device(seen: dict, golden) -> None:
    assert seen["printed"].tolist() == golden("affine_4x4")["seed_q_table"]
    section = golden("mit_lab_linear_quantize")
    close(seen["test_tensor"], section["tensor"])
    assert seen["lab_test"].codes.tolist() == section["q"]
    convolution = golden("quantized_conv")
    close(seen["picture"], convolution["x"])
    close(seen["kernel"], convolution["w"])
    close(seen["errors"]["padded with 0"], convolution["max_abs_err_wrong_padding"])
    ties = golden("tie_cases")["S0.5_Z1"]
    assert seen["here"].tolist() == ties["round_then_shift"]
    assert seen["real"].tolist() == ties["shift_then_round"]


def qat(seen: dict, golden) -> None:
    section = golden("seed004_quantizer")["int4_s0.5_off0"]
    table = dict(zip(section["x"], section["q_x_rne"], strict=True))
    assert [table[float(x)] for x in seen["probe"]] == seen["int4"](seen["probe"]).tolist()


def survey(seen: dict, golden) -> None:
    for code, number in golden("tf_minmax_8bit")["decode"].items():
        if int(code) in seen["decoded"]:
            close(seen["decoded"][int(code)], number)
    kl = golden("tensorrt_kl")["half_gaussian_sigma200_plus_outliers"]
    assert seen["counts"].sum() == kl["total"]
    assert seen["curve"].chosen.bins == kl["slides"]["m"]
    close(seen["curve"].chosen.reach, kl["slides"]["threshold_in_bins"])
    at = dict(zip(seen["curve"].bins.tolist(), seen["curve"].divergence, strict=True))
    for bins, wanted in kl["kl_at"].items():
        assert at[int(bins)] == (float("inf") if wanted == "inf" else pytest.approx(wanted, rel=1e-6))
    gaps = golden("deep_compression_coding")["relative_index_fig2"]
    mask = np.zeros(16)
    mask[[1, 4, 15]] = 1
    assert [gap - (place == 0) for place, gap in enumerate(seen["gaps"](mask, gaps["bits"]))] == [
        item["diff"] for item in gaps["encoded"]], "the paper counts the first gap from 0, here it is from −1"
    rounding = golden("rounding")
    x = dict(zip(rounding["x"], rounding["rne"], strict=True))
    assert seen["ties"]["half_even"] == [int(x[value]) for value in (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5)]


GOLDEN = {"aimet": aimet, "eece695d": eece695d, "on_device": on_device, "qat": qat, "survey": survey}


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_agrees_with_the_golden_values(name, golden):
    """One test for each lab, so that each runs once."""
    path, seen = lab(name), {}
    for _ in run(cells(path.read_text()), path, SMALL[name], seen):
        pass
    GOLDEN[name](seen, golden)
