"""The engines by name: each really runs, packages may offer others, and the conformance check finds a wrong one."""

from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

import fewbits as fb
from fewbits.artifact.verify import verify
from fewbits.engines import registry
from fewbits.engines.compare import Part, difference, difference_of_numbers
from fewbits.engines.engine import Engine, Prepared, Results
from fewbits.engines.executable import Executable
from fewbits.engines.executors import Native, Reference, Torch
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.registry import engine
from fewbits.errors import OptionError, UnsupportedError, VerificationError
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.ops import RECORDS, Linear, Mean
from fewbits.program.program import Program
from fewbits.testing import check_engine


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(path of a small file, an input)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5))
    x = torch.randn(4, 1, 6, 6)
    path = tmp_path_factory.mktemp("engines") / "net.fewbits"
    fb.quantize(net.eval(), x, [x]).save(path)
    return path, x


@pytest.mark.parametrize("name", ["reference", "torch", "native", "onnxruntime"])
def test_a_file_runs_on_the_engine_it_is_loaded_for(saved, name):
    path, x = saved
    by_torch, other = fb.load(path, engine="torch"), fb.load(path, engine=name)
    assert other.engine == name
    assert torch.equal(other(x), by_torch(x))
    assert torch.equal(other.codes(x), by_torch.codes(x))
    assert other.codes(x).dtype == torch.int32


def test_onnxruntime_is_what_runs(saved, monkeypatch):
    path, x = saved
    model = fb.load(path, engine="onnxruntime")
    ran = []
    run = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda session, inputs: ran.append(1) or run(session, inputs))
    monkeypatch.setattr(reference, "run", None)
    model(x)
    model.codes(x)
    assert len(ran) == 2


def test_an_engine_of_a_name_that_none_has(saved):
    with pytest.raises(OptionError, match="engine 'onnx' is none: did you mean onnxruntime"):
        fb.load(saved[0], engine="onnx")


def test_an_engine_that_does_not_run_a_profile():
    program, _ = as_program(RECORDS[Mean].examples()[-1])
    assert program.profile.name == "gemmlowp"
    with pytest.raises(UnsupportedError, match="engine onnxruntime does not run this program: profile gemmlowp rounds"):
        Executable(program, "onnxruntime")


def test_wide_sums_have_no_codes_in_float32():
    program, inputs = as_program(RECORDS[Linear].examples()[2])
    node = program.nodes[-1]
    assert isinstance(node, Linear)
    wide = replace(node, bias=np.array([2**23, 0, 0, 0], np.int32))
    model = Executable(replace(program, nodes=(*program.nodes[:-1], wide)), "onnxruntime")
    x = torch.from_numpy(inputs["x.real"])
    assert model(x).dtype == torch.float32
    with pytest.raises(VerificationError, match=r"sums of 'y' as float32 numbers, .* take engine='torch'"):
        model.codes(x)


# ------------------------------------------------------------------------------------------ engines of other packages


@dataclass(frozen=True)
class Foreign(Engine):
    """The reference, but for the codes of one node's output."""

    wrong: str = ""
    name = "foreign"
    promises = True

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        right = Reference().prepare(program, keep)
        return _Changed(program, right, self.wrong)


@dataclass(frozen=True)
class _Changed(Prepared):
    program: Program
    right: Prepared
    wrong: str

    def run(self, inputs) -> Results:
        codes = dict(self.right.run(inputs).codes)
        if self.wrong in codes:
            codes[self.wrong] = codes[self.wrong].copy()
            codes[self.wrong].flat[-1] ^= 1
        return Results(codes)


def offer(monkeypatch, value: str, name: str = "foreign") -> None:
    entry = EntryPoint(name, value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points",
                        lambda group, name=None: [entry] if name in (None, entry.name) else [])


def test_a_package_may_offer_an_engine(saved, monkeypatch):
    path, x = saved
    offer(monkeypatch, f"{__name__}:Foreign")
    model = fb.load(path, engine="foreign")
    assert model.engine == "foreign"
    assert torch.equal(model(x), fb.load(path, engine="torch")(x))
    assert registry.engine_names()[-1] == "foreign"
    assert [replay.differing for replay in verify(path, ["foreign", "torch"])] == [0, 0]


@pytest.mark.parametrize(("value", "told"), [
    ("builtins:dict", "builtins:dict is offered as engine 'foreign' and gives a dict, not an Engine"),
    ("no.such.module:Thing", r"engine 'foreign' of no.such.module:Thing cannot be made \(ModuleNotFoundError"),
])
def test_a_package_that_offers_something_else(value, told, monkeypatch):
    offer(monkeypatch, value)
    with pytest.raises(UnsupportedError, match=told):
        engine("foreign")


def test_a_wrong_engine_is_seen_where_files_are_replayed(saved):
    (replay,) = verify(saved[0], [Foreign("input.codes")])
    assert (replay.engine, replay.differing, replay.first) == ("foreign", 1, "input.codes")


@pytest.mark.parametrize("checked", [Reference(), Torch(), Native(), OnnxRuntime(), OnnxRuntime("qdq"),
                                     OnnxRuntime("integer", "off")])
def test_the_engines_pass_their_check(checked):
    assert check_engine(checked, range(1)) > 40


def test_the_check_finds_a_wrong_engine():
    with pytest.raises(AssertionError, match="engine foreign differs at Quantize, example 0, seed 0"):
        check_engine(Foreign("y"))


# --------------------------------------------------------------------------------------------------- the comparison


def part(kind: type, number: int = 0):
    """(part, the reference's values, the name of the output)."""
    program, inputs = as_program(RECORDS[kind].examples()[number])
    known = inputs | reference.run(program, inputs, [node.name for node in program.nodes])
    return Part(program, "integers"), known, program.outputs[0]


def test_codes_are_counted_in_steps():
    what, known, name = part(Mean)
    assert difference(what, name, known, known[name]).differing == 0
    moved = known[name].copy()
    moved.flat[:2] += np.uint8([1, 4])
    seen = difference(what, name, known, moved)
    assert (seen.compared, seen.differing, seen.near, seen.largest) == (moved.size, 2, 0, 4.0)
    behind = difference(replace(what, extent="islands"), name, known, moved)
    assert (behind.differing, behind.near) == (1, 1)


def test_numbers_are_held_to_their_bits():
    what, known, name = part(Mean)
    numbers = what.program.real(name, known[name])
    known[name].flat[0] = what.program.encoding(name).zero_point
    numbers.flat[0] = -0.0
    numbers.flat[1] = np.nan
    numbers.flat[2] = np.nextafter(numbers.flat[2], np.float32(np.inf))
    seen = difference_of_numbers(what, name, known, numbers)
    assert (seen.differing, seen.signs) == (3, 1)
    assert 0 < seen.largest < 1e-5


def test_another_shape_differs_whole():
    what, known, name = part(Mean)
    seen = difference(what, name, known, known[name][:1])
    assert (seen.differing, seen.shape) == (3, (1, 3, 1, 1))
    assert difference_of_numbers(what, name, known, np.zeros(7, np.float32)).differing == 7
