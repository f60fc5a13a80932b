"""`--plot` of every verb that has one: a sound picture of what was asked, and other names refused before any work."""

import dataclasses
from xml.etree import ElementTree

import pytest

import fewbits as fb
from fewbits.cli.verb import name_of
from fewbits.cli.verbs import ALL
from fewbits.errors import RecipeError

NETWORK = ("mynets:small", "--weights", "small.pt", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25")
COMMANDS = {
    "calibrate": ("calibrate", *NETWORK, "--recipe", "w8a8-entropy", "--cache", "{out}.json"),
    "compare-plans": ("compare-plans", *NETWORK, "--recipes", "w8a8,w4a8", "--engine", "none"),
    "sensitivity": ("sensitivity", *NETWORK, "--images", "32"),
    "rounding-study": ("rounding-study", *NETWORK, "--draws", "2", "--iterations", "5", "--metric", "accuracy"),
    "calibration-study": ("calibration-study", *NETWORK, "--batches", "1", "--batches", "3", "--batch-size", "8"),
    "formats": ("formats", "e2m1"),
    "compress": ("compress", "small.pt", "--bits", "4", "--out", "{out}.fewbits"),
}
SAYS = {"calibrate": "KL(P‖Q)", "compare-plans": "w4a8", "sensitivity": "highest code", "rounding-study": "AdaRound",
        "calibration-study": "calibration batches", "formats": "e2m1", "compress": "in the file"}


def typed(verb: str, out) -> list[str]:
    return [part.format(out=out) for part in COMMANDS[verb]]


def test_every_verb_with_a_picture_is_driven():
    assert {name_of(verb) for verb in ALL if any(field.name == "plot" for field in dataclasses.fields(verb))} == set(
        COMMANDS)


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_picture(verb, small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    shown = fewbits(*typed(verb, tmp_path / "out"), "--plot", tmp_path / "p.svg")
    assert shown.code == 0, shown.err
    text = (tmp_path / "p.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert SAYS[verb] in text
    assert "nan" not in text.lower()


@pytest.mark.parametrize("verb", COMMANDS)
def test_another_name_is_refused_at_once(verb, small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    shown = fewbits(*typed(verb, tmp_path / "out"), "--plot", tmp_path / "p.png")
    assert shown.code == 2
    assert "must end in .svg" in shown.err
    assert not list(tmp_path.iterdir())


def test_what_has_no_curve_says_so(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    cache, picture = tmp_path / "c.json", tmp_path / "p.svg"
    shown = fewbits("calibrate", *NETWORK, "--recipe", "w8a8", "--cache", cache, "--plot", picture)
    assert shown.code == 2
    assert "KL divergence" in shown.err
    entropy = ("calibrate", *NETWORK, "--recipe", "w8a8-entropy", "--cache", tmp_path / "d.json", "--plot", picture)
    assert fewbits(*entropy).code == 0
    again = fewbits(*entropy)
    assert again.code == 2
    assert "a cache, which keeps no histograms" in again.err


def test_the_staircase(fewbits, tmp_path):
    assert fewbits("formats", "ternary", "--staircase", tmp_path / "s.svg").code == 0
    assert "Q(x)" in (tmp_path / "s.svg").read_text()
    assert fewbits("formats", "fp32", "--staircase", tmp_path / "t.svg").code == 2


@pytest.mark.parametrize(("arguments", "text"), [
    (("fp32", "--number", "0.265625"), "0.265625 = (1 + 0.0625) · 2^(125 − 127)"),
    (("fp32", "--number", "0.265625"), "sign 0, exponent 01111101 (125), fraction 00010000000000000000000"),
    (("fp32", "--number", "0.265625"), "code 0x3e880000"), (("int4", "--number", "2.3"), "2: code 2, bits 0010"),
    (("int4", "--number", "-8"), "code -8, bits 1000"), (("q4.4", "--number", "3.0625"), "bits 00110001"),
    (("e4m3", "--number", "-0.005"), "(0 + 0.375) · 2^(1 − 7)"), (("sm4", "--number", "-3"), "sign 1, magnitude 011"),
    (("fp16", "--number", "1e9"), "overflows")])
def test_one_number(arguments, text, fewbits):
    shown = fewbits("formats", *arguments)
    assert shown.code == 0, shown.err
    assert text in shown.out


@pytest.mark.parametrize("arguments", [("--number", "1"), ("int4", "--number", "nan"), ("--staircase", "s.svg")])
def test_one_number_of_nothing(arguments, fewbits):
    assert fewbits("formats", *arguments).code == 2


def test_repairs_by_name(small, fewbits, monkeypatch, tmp_path):
    """Besides those of the recipe, by the recipe's names or those of the functions; others are refused."""
    monkeypatch.chdir(small)
    wrong = fewbits("quantize", *NETWORK, "--repair", "magic", "--out", tmp_path / "o")
    assert wrong.code == 2
    assert "choose among equalization" in wrong.err
    both = fewbits("quantize", *NETWORK, "--repair", "gptq", "--repair", "adaround", "--out", tmp_path / "o")
    assert both.code == 2
    assert "leave one of them out" in both.err
    done = fewbits("quantize", *NETWORK, "--recipe", "w4a8", "--repair", "equalize", "--repair", "correct-biases",
                   "--out", tmp_path / "o")
    assert done.code == 0, done.err
    assert "equalize makes the outputs worse" in done.err, "it was tried"


def test_a_recipe_and_more_repairs():
    both = fb.recipe("default-w8a8", repairs=["adaround", "equalize"])
    assert both.repairs == ("equalization", "adaround", "bias-correction"), "in the order in which they are made"
    assert fb.recipe(both, repairs=["adaround"]) == both
    assert fb.recipe("w8a8", repairs=()) == fb.recipe("w8a8")
    with pytest.raises(RecipeError, match="learns in it"):
        fb.recipe("lsq-w4a4", repairs=["adaround"])
