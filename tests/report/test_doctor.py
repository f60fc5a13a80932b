"""What `fewbits doctor` finds, and what it says where something is not there."""

import tomllib
from pathlib import Path

from fewbits.engines import openvino, registry
from fewbits.engines.registry import ENGINES
from fewbits.kernels import library
from fewbits.report import doctor
from fewbits.report.doctor import EXTRAS, diagnosis


def test_what_is_here():
    found = diagnosis()
    assert [engine.name for engine in found.engines][:len(ENGINES)] == list(ENGINES)
    assert {engine.name for engine in found.engines if engine.promises} >= {"fastest", "reference", "torch"}
    assert found.kernels.levels == library.levels()
    assert found.kernels.level == library.level()
    assert dict(found.machine.versions).keys() >= {"python", "torch", "numpy", "onnxruntime"}
    assert {extra.name for extra in found.extras} <= set(EXTRAS)


def test_every_extra_is_explained():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"dev"}


def test_a_missing_library_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "_library", None)
    monkeypatch.setattr(library, "PATH", str(tmp_path / "gone.so"))
    for compiler, told in (("/usr/bin/g++", "it was not built; python -m fewbits.kernels.build makes it"),
                           (None, "it was not built; install a C++ compiler such as g++, then python -m fewbits.")):
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(doctor.shutil, "which", lambda name, found=compiler: found)
        found = diagnosis()
        assert told in found.missing[0]
        assert sum("native library" in line for line in found.missing) == 1
        assert found.kernels.levels == ("numpy",)
        assert next(engine for engine in found.engines if engine.name == "native").missing


def test_a_level_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv(library.VARIABLE, "sse9")
    monkeypatch.setattr(library, "_start", library._start.__wrapped__)
    found = diagnosis()
    assert found.missing[0].startswith("FEWBITS_LEVEL is 'sse9': name one of numpy, portable")
    assert found.kernels.level == ""


def test_an_engine_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(openvino, "openvino_missing", lambda: "OpenVINO is not installed here: pip install it")
    found = next(engine for engine in diagnosis().engines if engine.name == "openvino")
    assert found.missing == "OpenVINO is not installed here: pip install it"


def test_a_package_whose_engine_cannot_be_made_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "engine_names", lambda: (*registry.ENGINES, "broken"))
    assert any(line.startswith("engine broken: ") for line in diagnosis().missing)
