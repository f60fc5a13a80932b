"""The commands from end to end: the files they write, and one sentence with exit code 2 for bad input."""

import importlib
import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

import fewbits as fb
from fewbits.artifact.verify import replayed
from fewbits.kernels import library


def test_quantize_writes_everything(saved):
    assert {path.name for path in saved.iterdir()} == {"model.fewbits", "model.onnx", "report.html", "summary.json"}
    summary = json.loads((saved / "summary.json").read_text())
    assert set(summary) == {"float_accuracy", "accuracy", "samples", "flips", "float_bytes", "bytes", "mismatches",
                            "compared_codes", "weight_memory", "activation_memory", "bops", "float_energy_pj",
                            "energy_pj", "float_ms", "ms", "native_ms"}
    assert summary["samples"] == 40
    assert summary["mismatches"] == 0
    assert summary["compared_codes"] > 10_000
    assert summary["bytes"] == (saved / "model.fewbits").stat().st_size
    assert fb.load(saved / "model.fewbits")(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_evaluate_inspect_verify_export(saved, small, fewbits, tmp_path):
    file = saved / "model.fewbits"
    accuracy = json.loads((saved / "summary.json").read_text())["accuracy"]
    result = fewbits("evaluate", file, "--data", f"npz:{small / 'data.npz'}", "--mean", "0.5", "--std", "0.25")
    assert result.code == 0
    assert f"{100 * accuracy:.2f} %" in result.out
    assert "\nengine " in result.out
    result = fewbits("inspect", file)
    assert result.code == 0
    assert str(file.stat().st_size) in result.out
    result = fewbits("verify", file)
    assert result.code == 0
    assert result.out.count("as expected") == len(replayed())
    for form in ("integer", "qdq"):
        result = fewbits("export", file, "--form", form, "--out", tmp_path / f"{form}.onnx")
        assert result.code == 0
        assert "0 differ" in result.out
    assert (tmp_path / "integer.onnx").read_bytes() == (saved / "model.onnx").read_bytes()


def test_a_saved_model_knows_how_its_data_is_prepared(saved, small, fewbits, tmp_path):
    file, data = saved / "model.fewbits", f"npz:{small / 'data.npz'}"
    said = fewbits("evaluate", file, "--data", data)
    assert said.code == 0, said.err
    assert said.out == fewbits("evaluate", file, "--data", data, "--mean", "0.5", "--std", "0.25").out
    assert said.out != fewbits("evaluate", file, "--data", data, "--mean", "0.9", "--std", "0.9").out
    assert "(byte / 255 - 0.5) / 0.25" in fewbits("inspect", file).out
    assert fewbits("export", file, "--data", data, "--out", tmp_path / "a.onnx").code == 0
    assert "give --mean and --std too" in fewbits("evaluate", file, "--data", data, "--divide", "16").err


def test_labels_begin_where_the_network_says(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    command = ["quantize", "mynets:background", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25"]
    result = fewbits(*command, "--out", tmp_path, "--label-offset", "1")
    assert result.code == 0, result.err
    model, arrays = fb.load(tmp_path / "model.fewbits"), np.load("data.npz")
    x = (torch.from_numpy(arrays["test_x"])[:, None] / 255 - 0.5) / 0.25
    right = [int((model(x).argmax(1).numpy() == arrays["test_y"] + offset).sum()) for offset in (0, 1)]
    assert right[0] != right[1]
    assert json.loads((tmp_path / "summary.json").read_text())["accuracy"] == right[1] / 40
    told = fewbits("evaluate", tmp_path / "model.fewbits", "--data", "npz:data.npz").out
    assert told.startswith(f"top-1 {100 * right[1] / 40:.2f} %")
    told = fewbits("evaluate", tmp_path / "model.fewbits", "--data", "npz:data.npz", "--label-offset", "0").out
    assert told.startswith(f"top-1 {100 * right[0] / 40:.2f} %")
    assert "class 1 is label 0" in fewbits("inspect", tmp_path / "model.fewbits").out
    refused = fewbits("evaluate", tmp_path / "model.fewbits", "--data", "npz:data.npz", "--label-offset", "-1")
    assert refused.code == 2 and "below 0" in refused.err


def test_an_exported_network(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    monkeypatch.syspath_prepend(small)
    net = importlib.import_module("mynets").small().eval()
    net.load_state_dict(torch.load("small.pt", weights_only=True))
    moving = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=moving), tmp_path / "net.pt2")
    command = ("--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25", "--out")
    for name, given in (("module", ["mynets:small", "--weights", "small.pt"]), ("file", [tmp_path / "net.pt2"])):
        result = fewbits("quantize", *given, *command, tmp_path / name)
        assert result.code == 0, result.err
    assert (tmp_path / "file/model.onnx").read_bytes() == (tmp_path / "module/model.onnx").read_bytes()
    result = fewbits("quantize", "gone.pt2", *command, tmp_path / "gone")
    assert result.code == 2 and "gone.pt2 does not exist" in result.err


def test_plan_is_printed_first(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    result = fewbits("quantize", "mynets:small", "--data", "npz:data.npz", "--mean", "0", "--std", "1",
                     "--out", tmp_path, "--plan")
    assert result.code == 0
    assert "0.weight (weight): int8 per channel" in result.out


def test_a_profile_without_an_engine(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    out = tmp_path / "litert"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"of another run")
    result = fewbits(*QUANTIZE, "--recipe", "w8a8-signed", "--profile", "litert", "--out", out)
    assert result.code == 0, result.out + result.err
    assert "ONNX Runtime does not compute profile litert" in result.out
    assert {path.name for path in out.iterdir()} == {"model.fewbits", "report.html", "summary.json"}
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["mismatches"], summary["ms"]) == (0, None) and summary["compared_codes"] > 1000
    result = fewbits("verify", out / "model.fewbits")
    assert (result.code, result.out.count("as expected")) == (0, 3 if library.native() else 2)
    result = fewbits("export", out / "model.fewbits", "--out", tmp_path / "x.onnx")
    assert result.code == 2 and "profile litert rounds in integers" in result.err
    assert not (tmp_path / "x.onnx").exists()


QUANTIZE = ("quantize", "mynets:small", "--weights", "small.pt", "--data", "npz:data.npz", "--mean", "0.5",
            "--std", "0.25")


def changed(**options):
    """The good command with other options; None leaves one out."""
    arguments = list(QUANTIZE)
    for option, value in options.items():
        if option == "network":
            arguments[1] = value
            continue
        flag = f"--{option}"
        if flag in arguments:
            del arguments[arguments.index(flag):arguments.index(flag) + 2]
        if value is not None:
            arguments += [flag, value]
    return arguments


@pytest.mark.parametrize(("options", "words"), [
    ({"network": "lenet6"}, ["lenet6", "lenet5"]),
    ({"network": "nothere:make"}, ["nothere"]),
    ({"network": "mynets:absent"}, ["absent"]),
    ({"network": "mynets:unsupported"}, ["2 operators cannot become integers", "cumsum", "cumprod", "mynets.py:13"]),
    ({"network": "mynets:other"}, ["small.pt", "another architecture"]),
    ({"weights": "gone.pt"}, ["gone.pt"]),
    ({"weights": "truncated.pt"}, ["truncated.pt", "damaged"]),
    ({"data": "cifar11:here"}, ["cifar11"]),
    ({"data": "npz:gone.npz"}, ["gone.npz"]),
    ({"data": "npz:nan.npz", "mean": None, "std": None}, ["batch 0", "NaN"]),
    ({"mean": None, "std": None}, ["--mean"]),
    ({"std": None}, ["--mean and --std"]),
    ({"recipe": "w9a9"}, ["w9a9", "w8a8"]),
    ({"recipe": "unknown_key.yaml"}, ["unknown_key.yaml", "wieghts"]),
    ({"recipe": "no_match.yaml"}, ["matches nothing"]),
    ({"profile": "abacus"}, ["abacus", "onnxruntime-portable"]),
    ({"profile": "onnxruntime-portable"}, ["-64 to 64", "w7a8"]),
    ({"profile": "litert"}, ["takes signed ones of at most 8 bits", "w8a8-signed"]),
    ({"profile": "onnxruntime/sums12"}, ["needs sums of", "onnxruntime/sums12-split"]),
])
def test_bad_input_is_one_sentence_and_exit_code_2(small, fewbits, monkeypatch, tmp_path, options, words):
    good = "version: 1\nweights: {format: int8}\nactivations: {format: uint8}\n"
    (small / "unknown_key.yaml").write_text(good + "wieghts: {}\n")
    (small / "no_match.yaml").write_text(good + 'rules: [{module: "heat.*", weights: {format: int4}}]\n')
    (small / "truncated.pt").write_bytes((small / "small.pt").read_bytes()[:700])
    if options.get("network") == "mynets:unsupported":
        options = {**options, "weights": None}
    monkeypatch.chdir(small)
    result = fewbits(*changed(**options), "--out", tmp_path / "out")
    assert result.code == 2
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err
    assert not (tmp_path / "out" / "model.fewbits").exists()


def test_out_is_a_file(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    (tmp_path / "out").write_text("mine")
    result = fewbits(*QUANTIZE, "--out", tmp_path / "out")
    assert result.code == 2
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("verb", ["evaluate", "inspect", "verify", "export"])
def test_files_that_are_not_ours(saved, small, fewbits, tmp_path, verb):
    options = {"evaluate": ["--data", f"npz:{small / 'data.npz'}"], "export": ["--out", tmp_path / "x.onnx"]}
    whole = (saved / "model.fewbits").read_bytes()
    (tmp_path / "cut.fewbits").write_bytes(whole[:-9])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    (tmp_path / "flipped.fewbits").write_bytes(flipped)
    shutil.copy(saved / "model.onnx", tmp_path / "foreign.fewbits")
    for name in ("gone", "cut", "flipped", "foreign"):
        result = fewbits(verb, tmp_path / f"{name}.fewbits", *options.get(verb, []))
        assert result.code == 2, name
        assert f"{name}.fewbits" in result.err
        assert "Traceback" not in result.err
    assert not (tmp_path / "x.onnx").exists()


def test_a_full_disk_keeps_the_old_file(saved, tmp_path):
    """A limit on file size stands in for the full disk; it needs a process of its own."""
    shutil.copy(saved / "model.fewbits", tmp_path / "old.fewbits")
    script = f"""
import resource, signal
import fewbits as fb
model = fb.load({str(tmp_path / 'old.fewbits')!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    model.save({str(tmp_path / 'old.fewbits')!r})
except fb.FewbitsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "old.fewbits" in done.stdout
    assert (tmp_path / "old.fewbits").read_bytes() == (saved / "model.fewbits").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["old.fewbits"]


def test_usage_mistakes_exit_with_2(fewbits):
    assert fewbits("quantize", "lenet5").code == 2
    assert fewbits("quantise").code == 2


def test_float_data_and_mean_do_not_go_together(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    np.savez(tmp_path / "f.npz", x=np.zeros((4, 1, 8, 8), np.float32), y=np.zeros(4, np.int64))
    result = fewbits(*changed(data=f"npz:{tmp_path / 'f.npz'}"), "--out", tmp_path / "out")
    assert result.code == 2
    assert "leave out --mean" in result.err


def test_calibrate_keeps_and_reuses_ranges(small, fewbits, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    cache, table = tmp_path / "ranges.json", tmp_path / "table"
    command = ["calibrate", "mynets:small", "--data", f"npz:{small / 'data.npz'}", "--mean", "0.5", "--std", "0.25",
               "--cache", cache]
    result = fewbits(*command, "--tensorrt", table)
    assert result.code == 0, result.err
    assert "written" in result.out
    assert table.read_text().startswith("TRT-")
    assert "read from" in fewbits(*command).out
    refused = fewbits(*command, "--recipe", "w4a8")
    assert refused.code == 2
    assert "another plan" in refused.err


def test_calibrate_takes_the_ranges_of_a_tensorrt_table(small, fewbits, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    cache, table, again = tmp_path / "ranges.json", tmp_path / "table", tmp_path / "again"
    command = ["calibrate", "mynets:small", "--data", f"npz:{small / 'data.npz'}", "--mean", "0.5", "--std", "0.25",
               "--cache", cache]
    assert fewbits(*command, "--tensorrt", table).code == 0
    own, lines = json.loads(cache.read_text()), table.read_text().splitlines()
    scales = [struct.unpack(">f", bytes.fromhex(line.split(": ")[1]))[0] for line in lines[1:]]
    doubled = [f"{line.split(': ')[0]}: {struct.pack('>f', 2 * scale).hex()}"
               for line, scale in zip(lines[1:], scales, strict=True)]
    table.write_text("\n".join([lines[0], *doubled]) + "\n")
    result = fewbits(*command, "--from-tensorrt", table, "--tensorrt", again)
    assert result.code == 0, result.err
    kept = json.loads(cache.read_text())
    for site, grid in kept["sites"].items():
        names = {line.split(":")[0] for line in doubled}
        assert (grid == own["sites"][site]) == (site not in names), site
    assert [line.split(":")[0] for line in again.read_text().splitlines()] == [lines[0], *(
        line.split(":")[0] for line in doubled)]
    (tmp_path / "none").write_text("nothing")
    refused = fewbits(*command, "--from-tensorrt", tmp_path / "none")
    assert refused.code == 2
    assert "is no TensorRT calibration table" in refused.err
    assert json.loads(cache.read_text()) == kept


def test_sensitivity(small, fewbits, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    html = tmp_path / "sites.html"
    command = ("sensitivity", "mynets:small", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25",
               "--recipe", "w4a8")
    result = fewbits(*command, "--html", html)
    assert result.code == 0, result.err
    assert "what each tensor does" in result.out
    assert f"written: {tmp_path}/sites.html" in result.out.replace("\n", "") and "0.weight" in html.read_text()
    found = json.loads(fewbits(*command, "--json").out)["result"]
    assert found["sites"][0]["plot"]
    assert {site["site"] for site in found["sites"]} >= {"input", "0.weight", "4.weight"}


def test_a_wrong_normalisation_is_noticed(small, fewbits, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    monkeypatch.syspath_prepend(str(small))
    import mynets
    x = torch.from_numpy(np.load(small / "data.npz")["train_x"])[:, None] / 255
    net = mynets.small()
    net[1].momentum = None
    net((x - 0.5) / 0.25)
    torch.save(net.state_dict(), tmp_path / "trained.pt")
    command = changed(weights=tmp_path / "trained.pt")
    right = fewbits(*command, "--out", tmp_path / "right")
    assert (right.code, right.err) == (0, "")
    wrong = fewbits(*changed(weights=tmp_path / "trained.pt", std=1), "--out", tmp_path / "wrong")
    assert wrong.code == 0
    assert wrong.err.startswith("fewbits: warning: the results of '0' spread 0.25 times as widely"), wrong.err
    assert wrong.err.count("\n") == 1


def test_quantize_keeps_and_reuses_ranges(small, fewbits, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    cache = tmp_path / "ranges.json"
    for folder, words in (("first", "kept in"), ("again", "read from")):
        result = fewbits(*QUANTIZE, "--out", tmp_path / folder, "--cache", cache)
        assert result.code == 0, result.err
        assert f"ranges are {words}" in result.out.replace("\n", " ")
    assert (tmp_path / "again/model.fewbits").read_bytes() == (tmp_path / "first/model.fewbits").read_bytes()
    content = json.loads(cache.read_text())
    content["sites"]["input"]["scale"] = [2 * value for value in content["sites"]["input"]["scale"]]
    right = cache.read_bytes()
    cache.write_text(json.dumps(content))
    refused = fewbits(*QUANTIZE, "--out", tmp_path / "other", "--cache", cache)
    assert (refused.code, "changed by hand" in refused.err) == (2, True)
    cache.write_bytes(right)
    refused = fewbits(*changed(weights=None, network="mynets:other"), "--out", tmp_path / "none", "--cache", cache)
    assert (refused.code, "another model" in refused.err) == (2, True)
    assert not (tmp_path / "none").exists()


STUDY = (*QUANTIZE[1:], "--batch-size", "8")


def test_rounding_study(small, fewbits, monkeypatch):
    monkeypatch.chdir(small)
    result = fewbits("rounding-study", *STUDY, "--draws", "3", "--iterations", "20", "--images", "16")
    assert result.code == 0, result.err
    assert "w4a8, all layers: logit SQNR on test images, dB" in result.out
    rows = dict(line.strip().split(": ") for line in result.out.splitlines()[1:])
    assert list(rows) == ["nearest", "ceil", "floor", "stochastic", "best of 3 stochastic", "AdaRound"]
    assert float(rows["nearest"]) > max(float(rows["ceil"]), float(rows["floor"]))
    again = fewbits("rounding-study", *STUDY, "--draws", "3", "--iterations", "20", "--images", "16")
    assert again.out == result.out
    command = ("rounding-study", *STUDY, "--draws", "1", "--iterations", "2", "--images", "16", "--layer")
    assert "w4a8, 4: logit SQNR" in fewbits(*command, "4").out
    refused = fewbits(*command, "nothing")
    assert refused.code == 2
    assert "no layer is called 'nothing': choose among 0, 4" in refused.err


def test_calibration_study(small, fewbits, monkeypatch):
    monkeypatch.chdir(small)
    result = fewbits("calibration-study", *STUDY, "--batches", "2", "--batches", "8")
    assert result.code == 0, result.err
    assert "40 test images, batches of 8" in result.out
    assert [line.split()[0] for line in result.out.splitlines()[2:]] == ["float", "2", "8"]
    refused = fewbits("calibration-study", *STUDY)
    assert refused.code == 2
    assert "there are 8 calibration batches, too few for 50" in refused.err


def test_a_network_nobody_trained_is_said_to_be_so(small, fewbits, monkeypatch, tmp_path):
    """Found by building it twice: a factory that loads its weights is none, one that loads some is partly."""
    (small / "loaded.py").write_text(f"""
import torch
from mynets import small

def whole():
    net = small()
    net.load_state_dict(torch.load({str(small / 'small.pt')!r}))
    return net

def part():
    net = small()
    state = torch.load({str(small / 'small.pt')!r})
    net.load_state_dict({{name: tensor for name, tensor in state.items() if name[0] != "0"}}, strict=False)
    return net
""")
    monkeypatch.chdir(small)
    data = ("--data", f"npz:{small / 'data.npz'}", "--mean", "0.5", "--std", "0.25")
    told = {}
    for network in ("mynets:small", "loaded:whole", "loaded:part"):
        result = fewbits("quantize", network, *data, "--recipe", "w8", "--out", tmp_path / "out")
        assert result.code == 0, result.err
        told[network] = result.err
    assert "no --weights: mynets:small is untrained, 3 of its 8 tensors are random numbers (the first is '0.weight')" \
        in told["mynets:small"]
    assert "loaded:part is partly untrained, 1 of its 8 tensors are random numbers (the first is '0.weight')" in \
        told["loaded:part"]
    assert "untrained" not in told["loaded:whole"]
    result = fewbits("train", "mynets:small", *data, "--recipe", "qat-w8a8", "--epochs", "1", "--out", tmp_path / "t")
    assert result.code == 0, result.err
    assert "the report's float column is its accuracy untrained" in result.err


def test_a_network_far_from_float_gets_three_lines_of_advice(small, fewbits, monkeypatch, tmp_path):
    monkeypatch.chdir(small)
    (tmp_path / "coarse.yaml").write_text("version: 1\nweights: {format: int2, block: tensor}\n"
                                          "activations: {format: uint8, symmetric: false}\n")
    given = ("mynets:small", "--data", f"npz:{small / 'data.npz'}", "--mean", "0.5", "--std", "0.25", "--weights",
             small / "small.pt", "--out", tmp_path / "out")
    told = fewbits("quantize", *given, "--recipe", tmp_path / "coarse.yaml")
    assert told.code == 0, told.err
    lines = told.out[told.out.index("far from the float network"):].splitlines()
    assert "predictions changed); what costs most:" in lines[0]
    assert sum(" costs " in line for line in lines[1:4]) == 3
    assert "far from" not in fewbits("quantize", *given, "--recipe", "w8a16", "--profile", "litert-int16").out


def test_plans_are_compared(fewbits, small, tmp_path, monkeypatch):
    monkeypatch.chdir(small)
    monkeypatch.syspath_prepend(str(small))
    given = ["mynets:small", "--weights", "small.pt", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25"]
    command = ("compare-plans", *given, "--recipes", "w8a8,w4a8")
    done = fewbits(*command, "--html", tmp_path / "plans.html", "--x", "bops")
    assert done.code == 0, done.err
    assert "classes changed" in done.out and "A  w8a8" in done.out
    told = json.loads(fewbits(*command, "--engine", "none", "--json").out)["result"]
    assert [plan["name"] for plan in told["plans"]] == ["w8a8", "w4a8"]
    assert "<svg" in (tmp_path / "plans.html").read_text()
    for options, words in ((["--recipes", " , "], "--recipes names none"), (["--recipes", "w8a8", "--x", "joy"],
                                                                           "no figure of plans is called 'joy'"),
                           (["--recipes", "w9"], "no recipe is called 'w9'")):
        done = fewbits("compare-plans", *given, *options)
        assert done.code == 2 and words in done.err
