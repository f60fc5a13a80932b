"""`fewbits train` from end to end: what it writes, that a finished checkpoint changes nothing, and bad input."""

import json

import pytest

TRAIN = ("train", "digits_net", "--data", "digits", "--epochs", 1, "--batch-size", 128)


@pytest.mark.parametrize("recipe", ["lsq-w4a4", "twn"])
def test_it_learns_lowers_verifies_and_writes(fewbits, tmp_path, recipe):
    out, checkpoint = tmp_path / "out", tmp_path / "train.pt"
    result = fewbits(*TRAIN, "--recipe", recipe, "--float-epochs", 3, "--checkpoint", checkpoint, "--out", out,
                     "--distil", 0.5)
    assert result.code == 0, result.err
    assert {path.name for path in out.iterdir()} == {"model.fewbits", "model.onnx", "report.html", "summary.json",
                                                     "history.json", "history.svg"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["mismatches"] == 0
    assert summary["accuracy"] > 0.5
    assert ("with float activations" in result.out) == (recipe == "twn")
    written = (out / "model.fewbits").read_bytes()
    again = fewbits(*TRAIN, "--recipe", recipe, "--float-epochs", 3, "--checkpoint", checkpoint, "--out", out,
                    "--distil", 0.5)
    assert again.code == 0, again.err
    assert (out / "model.fewbits").read_bytes() == written


@pytest.mark.parametrize(("arguments", "word"), [
    (("--recipe", "lsq-w4a4", "--epochs", 0), "0 epochs"),
    (("--recipe", "lsq-w4a4", "--rate", -1), "--rate: "),
    (("--recipe", "nope"), "no recipe is called 'nope'"),
    (("--recipe", "lsq-w4a4", "--device", "tpu"), "choose cpu or cuda"),
    (("--recipe", "lsq-w4a4", "--distil", 2), "share from 0 to 1"),
    (("--recipe", "lsq-w4a4", "--rate", 1e30, "--epochs", 2), "is the first that is not finite"),
    (("--recipe", "bnn"), "binary activations, which only dot products"),
    (("--recipe", "lsq-w4a4", "--weights", "/nowhere.pt"), "no weights at /nowhere.pt"),
    (("--recipe", "lsq-w4a4", "--checkpoint", "/nowhere/x"), "/nowhere/x was not written"),
])
def test_bad_input(fewbits, tmp_path, arguments, word):
    result = fewbits(*TRAIN, *arguments, "--out", tmp_path / "out")
    assert result.code == 2
    assert word in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "out").exists()
