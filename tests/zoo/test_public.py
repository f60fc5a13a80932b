"""Networks of timm and of transformers, where these are installed: `python -m benchmarks.zoo` runs 96 of them."""

import importlib.util

import pytest
from benchmarks.zoo import TIMM, TRANSFORMERS, measured

SOME = ("lcnet_035", "convnextv2_atto", "swin_tiny_patch4_window7_224", "BERT", "Llama", "T5")


def test_what_is_run_here_is_part_of_it():
    assert set(SOME) <= {*TIMM, *TRANSFORMERS}
    assert len(TIMM) >= 45 and len(TRANSFORMERS) >= 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOME)
def test_a_public_network_is_a_program_whose_codes_nobody_disputes(name):
    package = "timm" if name in TIMM else "transformers"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    result = measured(name)
    assert (result.refused, result.differing) == ("", 0)
    assert result.sqnr >= 2, f"{result.sqnr:.1f} dB"
