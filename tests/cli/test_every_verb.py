"""Every verb: its help, its result as JSON, and what it prints into a pipe and in a terminal."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fewbits as fb
from fewbits.cli import quantize
from fewbits.cli.main import run
from fewbits.cli.verb import job_of, name_of, options
from fewbits.cli.verbs import ALL

NETWORK = ("mynets.py:small", "--weights", "small.pt", "--data", "npz:data.npz", "--mean", "0.5", "--std", "0.25")
COMMANDS = {
    "quantize": ("quantize", *NETWORK, "--out", "{out}"),
    "demo": ("demo", "--out", "{out}"),
    "evaluate": ("evaluate", "{saved}/model.fewbits", "--data", "npz:data.npz"),
    "inspect": ("inspect", "{saved}/model.fewbits"),
    "verify": ("verify", "{saved}/model.fewbits"),
    "export": ("export", "{saved}/model.fewbits", "--out", "{out}.onnx"),
    "encodings": ("encodings", "{saved}/model.fewbits"),
    "calibrate": ("calibrate", *NETWORK, "--cache", "{out}.json"),
    "train": ("train", *NETWORK, "--recipe", "qat-w8a8", "--epochs", "1", "--out", "{out}"),
    "search": ("search", *NETWORK, "--min-sqnr", "20", "--minimize", "bits", "--out", "{out}"),
    "compare-plans": ("compare-plans", *NETWORK, "--recipes", "w8a8,w4a8", "--engine", "none"),
    "sensitivity": ("sensitivity", *NETWORK, "--images", "32"),
    "rounding-study": ("rounding-study", *NETWORK, "--draws", "2", "--iterations", "5"),
    "calibration-study": ("calibration-study", *NETWORK, "--batches", "1", "--batch-size", "8"),
    "formats": ("formats", "e4m3"),
    "compress": ("compress", "small.pt", "--bits", "4", "--out", "{out}.fewbits"),
    "decompress": ("decompress", "{compressed}", "--out", "{out}.safetensors"),
    "reproduce": ("reproduce", "--list"),
    "lab": ("lab",),
    "doctor": ("doctor",),
}
FRAMES = re.compile("[┏┳┓┃┡╇┩]")  # of tables; pictures in text have axes


@pytest.fixture
def typed(small, saved, monkeypatch, tmp_path):
    """The command line of a verb, in the folder of a user's own network."""
    monkeypatch.chdir(small)
    monkeypatch.setattr(quantize, "_DEMO_EPOCHS", 1)

    def line(verb: str) -> list[str]:
        compressed = tmp_path / "held.fewbits"
        if verb == "decompress":
            save = job_of(next(each for each in ALL if name_of(each) == "compress"))
            asked = next(each for each in ALL if name_of(each) == "compress")(source="small.pt", out=compressed)
            save(asked, quantize.Console(quiet=True))
        return [part.format(out=tmp_path / "out", saved=saved, compressed=compressed) for part in COMMANDS[verb]]

    return line


@pytest.fixture
def terminal(monkeypatch):
    """Runs `fewbits …` with standard output, and error where wanted, on a pseudo-terminal of 80 columns; its exit code
    and text."""
    def command(*arguments: str, errors: bool = True) -> tuple[int, str]:
        master, slave = os.openpty()
        read: list[bytes] = []

        def drain() -> None:
            try:
                while got := os.read(master, 65536):
                    read.append(got)
            except OSError:  # the other end is closed
                pass

        reader = threading.Thread(target=drain)
        reader.start()
        code = 0
        with open(slave, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["fewbits", *arguments])
            patch.setattr(sys, "stdout", screen)
            if errors:
                patch.setattr(sys, "stderr", screen)
            patch.setenv("COLUMNS", "80")
            patch.setenv("TERM", "xterm-256color")
            try:
                run()
            except SystemExit as stop:
                code = int(stop.code or 0)
        reader.join()
        os.close(master)
        return code, b"".join(read).decode()

    return command


def test_every_verb_is_driven() -> None:
    assert list(COMMANDS) == [name_of(verb) for verb in ALL]


@pytest.mark.parametrize("verb", ALL, ids=name_of)
def test_help_has_every_option_and_an_example(verb, fewbits) -> None:
    shown = fewbits(name_of(verb), "--help")
    assert shown.code == 0
    for example in verb.examples:
        assert example in shown.out, "printed whole, so that it can be copied"
        assert example.startswith(f"fewbits {name_of(verb)}")
    other = {"show": "list", "keep": "record", "settings": "set"}
    for name, _, _ in options(verb):
        assert other.get(name, name.replace("_", "-")) in shown.out
    assert "--json" in shown.out
    assert callable(job_of(verb))


@pytest.mark.parametrize("verb", COMMANDS)
def test_piped(verb, typed, fewbits) -> None:
    shown = fewbits(*typed(verb))
    assert shown.code == 0, shown.err
    assert "\x1b" not in shown.out + shown.err
    assert not FRAMES.search(shown.out)
    assert shown.err == "" or all(line.startswith("fewbits: warning: ") for line in shown.err.splitlines())


@pytest.mark.parametrize("verb", COMMANDS)
def test_json_is_all_there_is_on_standard_output(verb, typed, fewbits) -> None:
    shown = fewbits(*typed(verb), "--json")
    assert shown.code == 0, shown.err
    told = json.loads(shown.out)
    assert list(told) == ["fewbits", "verb", "exit_code", "warnings", "result"]
    assert (told["fewbits"], told["verb"], told["exit_code"]) == (fb.__version__, verb, 0)
    assert told["result"]


@pytest.mark.parametrize("verb", COMMANDS)
def test_in_a_terminal(verb, typed, terminal) -> None:
    code, text = terminal(*typed(verb))
    assert code == 0, text
    assert text.strip()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    frames = [line for line in re.split("[\r\n]+", plain) if FRAMES.search(line)]
    assert all(len(line) <= 80 for line in frames)


def test_quantize_prints_a_screenful(typed, terminal) -> None:
    _, told = terminal(*typed("quantize"), errors=False)
    assert len(told.splitlines()) <= 24
    assert "differences expected" not in told
    _, text = terminal(*typed("quantize"), "--verbose")
    assert "differences expected" in text


def test_errors_are_json_too(small, fewbits, monkeypatch) -> None:
    monkeypatch.chdir(small)
    shown = fewbits("evaluate", "gone.fewbits", "--data", "npz:data.npz", "--json")
    told = json.loads(shown.out)
    assert (shown.code, told["exit_code"], told["verb"]) == (2, 2, "evaluate")
    assert told["error"]["kind"] == "FileError"
    assert shown.err == f"fewbits: {told['error']['message']}\n"


@pytest.mark.parametrize(("typed_in", "verb", "named"), [
    (("evaluate", "model.fewbits"), "evaluate", "--data is missing"),
    (("export", "model.fewbits", "--out", "a.onnx", "--form", "qqd"), "export", "'qqd' is not one of"),
    (("evalute", "model.fewbits"), "", "'evaluate'"),
    (("quantize", "lenet5", "--recepie", "w8a8"), "quantize", "--recipe"),
])
def test_misspelt_commands_are_json_too(fewbits, typed_in, verb, named) -> None:
    shown = fewbits(*typed_in, "--json")
    told = json.loads(shown.out)
    assert (shown.code, told["exit_code"], told["verb"], told["error"]["kind"]) == (2, 2, verb, "UsageError")
    assert named in told["error"]["message"]
    assert "Value error" not in told["error"]["message"]
    assert shown.err == f"fewbits: {told['error']['message']}\n"  # one sentence, not typer's four lines


def test_a_network_that_prints_does_not_spoil_the_json(small, fewbits, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(small)
    (tmp_path / "loud.py").write_text((small / "mynets.py").read_text() + "\nprint('loading')\n")
    shown = fewbits("quantize", f"{tmp_path}/loud.py:small", *NETWORK[1:], "--out", tmp_path / "o", "--json")
    assert json.loads(shown.out)["exit_code"] == 0
    assert "loading" in shown.err


def test_version(fewbits) -> None:
    assert fewbits("--version").out == f"fewbits {fb.__version__}\n"


def test_help_does_not_import_torch() -> None:
    """The time of torch's import is what made `--help` wait."""
    lines = ["import sys", "sys.argv = ['fewbits', '--help']", "from fewbits.cli.main import app",
             "app(standalone_mode=False)", "print({'torch', 'numpy', 'onnx', 'pydantic'} & set(sys.modules))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    assert "130  interrupted" in done.stdout


@pytest.mark.parametrize("verb", ["", "quantize"])
def test_help_is_quick(verb: str) -> None:
    """Processor time, which other work on the machine does not change much, beside that of `import torch`."""
    def spent(*command: str) -> float:
        before = os.times()
        subprocess.run(command, capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    shown = spent(sys.executable, "-m", "fewbits", *verb.split(), "--help")
    assert shown < 1
    assert shown < 0.6 * spent(sys.executable, "-c", "import torch")


def heeds_interrupts() -> None:
    """In a child: what a shell starts in the background inherits that it ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_says_what_is_kept(small, tmp_path) -> None:
    checkpoint = tmp_path / "train.pt"
    command = [sys.executable, "-m", "fewbits", "train", *NETWORK, "--recipe", "qat-w8a8", "--epochs", "100000",
               "--out", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    with subprocess.Popen(command, cwd=small, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                          preexec_fn=heeds_interrupts) as process:
        try:
            until = time.monotonic() + 300
            while not checkpoint.exists() and time.monotonic() < until and process.poll() is None:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()  # which otherwise trains for ever
    assert process.returncode == 130
    assert told.splitlines()[-1] == (f"fewbits: interrupted; {checkpoint} is kept, and the same command goes on from "
                                     "there")
    assert not Path(tmp_path / "out/model.fewbits").exists()


@pytest.mark.parametrize("module", ["fewbits.cli.main", "fewbits.cli.verbs.quantize", "typer"])
def test_an_interrupt_of_the_start(module: str) -> None:
    lines = ["import runpy, sys", "class Interrupts:", "    def find_spec(name, *rest):",
             f"        if name == {module!r}: raise KeyboardInterrupt", "sys.meta_path.insert(0, Interrupts)",
             "sys.argv = ['fewbits', '--help']", "runpy.run_module('fewbits', run_name='__main__')"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "fewbits: interrupted; nothing was begun\n")


def test_an_interrupt_of_the_imports_waits_for_their_end(small) -> None:
    """NumPy that is imported by half ends in a RecursionError."""
    lines = ["import os, signal, sys", "from fewbits.cli import main, verb", "job_of = verb.job_of",
             "def interrupted(asked):", "    os.kill(os.getpid(), signal.SIGINT)", "    return job_of(asked)",
             "verb.job_of = interrupted", "sys.argv = ['fewbits', 'doctor', '--json']", "main.run()"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=small, capture_output=True, text=True,
                          preexec_fn=heeds_interrupts)
    assert done.returncode == 130
    assert done.stderr == "fewbits: interrupted; nothing was kept, and what was on disk is as before\n"
    assert json.loads(done.stdout)["exit_code"] == 130
