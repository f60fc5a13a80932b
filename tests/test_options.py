"""Every option that takes one of a few words refuses any other, naming the option, the value and what is allowed."""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import fewbits
import fewbits as fb
from fewbits.errors import OptionError
from fewbits.numerics.floats import Float
from fewbits.options import check_option, options_checked, words

Door = tuple[str, Callable[..., object]]


def methods(name: str, made: type) -> Iterator[Door]:
    for part, method in inspect.getmembers(made):
        method = getattr(method, "__func__", method)
        if inspect.isfunction(method) and not part.startswith("_") and method.__module__.startswith("fewbits."):
            yield f"{name}.{part}", method


def hints(function: Callable[..., object]) -> dict[str, object]:
    return typing.get_type_hints(function)


def doors() -> Iterator[Door]:
    """The public names, their constructors and methods, and the methods of what all of these return."""
    waiting: list[Door] = []
    seen: set[object] = set()
    for name in fb.__all__:
        public = getattr(fb, name)
        if inspect.isclass(public) and not issubclass(public, Exception):
            seen.add(public)
            waiting += [(f"{name}.__init__", public.__init__), *methods(name, public)]
        elif inspect.isfunction(public):
            waiting.append((name, public))
    while waiting:
        name, door = waiting.pop()
        if door not in seen and inspect.isfunction(door):
            seen.add(door)
            yield name, door
            returned = hints(door).get("return")
            if inspect.isclass(returned) and returned.__module__.startswith("fewbits.") and returned not in seen:
                seen.add(returned)
                waiting += methods(returned.__name__, returned)


def decorated() -> Iterator[Door]:
    """Further functions that check their options, inside."""
    for info in pkgutil.walk_packages(fewbits.__path__, "fewbits."):
        if info.name.endswith("__main__") or "libfewbits" in info.name:
            continue
        for name, found in vars(importlib.import_module(info.name)).items():
            for part, function in ((name, found), *((f"{name}.{each}", method) for each, method in
                                                    (vars(found).items() if inspect.isclass(found) else ()))):
                if getattr(function, "__module__", "") == info.name and getattr(function, "checks_options", False):
                    yield f"{info.name.removeprefix('fewbits.')}.{part}", function


OPTIONS = [(where, function, option)
           for function, where in {function: where for where, function in (*doors(), *decorated())}.items()
           for option, hint in hints(function).items()
           if option != "return" and any(isinstance(word, str) for word in words(hint))]


def test_there_are_options() -> None:
    names = {where for where, _, _ in OPTIONS}
    assert {"fold.fold.fold", "api.export_onnx", "quant.simulation.Simulation.set_mode",
            "quant.spec.Spec.__init__"} <= names
    assert {name for name, _ in doors()} >= {"load", "Simulation.set_mode", "QuantizedModel.__init__", "Report.save"}
    assert len(OPTIONS) > 30


@pytest.mark.parametrize(("where", "function", "option"), OPTIONS,
                         ids=[f"{where}-{option}" for where, _, option in OPTIONS])
def test_another_word_is_refused(where, function, option) -> None:
    with pytest.raises((OptionError, TypeError)) as refused:
        function(**{option: "nonsense"})
    assert refused.type is OptionError, f"write @options_checked before {where}"
    assert str(refused.value).startswith(f"{option} = 'nonsense' ")
    for word in words(typing.get_type_hints(function)[option]):
        assert repr(word) in str(refused.value)


@pytest.fixture(scope="module")
def sim():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(40, 30), nn.ReLU())
    x = torch.randn(64, 40)
    model = fb.fold(fb.capture(net, x))
    return fb.calibrate(model, fb.plan(model, "w8a8"), [x])


def test_a_misspelt_mode_does_not_turn_quantization_off(sim) -> None:
    x = torch.randn(64, 40)
    before = sim(x)
    with pytest.raises(OptionError, match="mode = 'simulated' is not allowed: give one of 'observe', 'simulate'"):
        sim.set_mode("simulated")
    with pytest.raises(OptionError, match="mode = 'simulated'"):
        next(iter(sim.quantizers())).mode = "simulated"
    with pytest.raises(OptionError, match="kinds = 'weight' is not allowed: give any of"):
        sim.set_mode("off", "weight")  # a word where a collection belongs, of which `in` makes a search for letters
    with pytest.raises(OptionError, match=r"kinds = \['weights'\]"):
        sim.set_mode("off", ["weights"])
    assert torch.equal(sim(x), before)
    sim.set_mode("off", ["weight"])
    assert not torch.equal(sim(x), before)
    sim.set_mode("simulate")


def test_form_and_engine(sim, tmp_path: Path) -> None:
    prog = fb.lower(sim)
    with pytest.raises(OptionError, match="form = 'QDQ' is not allowed: give one of 'integer', 'qdq'"):
        fb.export_onnx(prog, tmp_path / "a.onnx", [torch.randn(8, 40)], form="QDQ")
    assert not list(tmp_path.iterdir())
    prog.save(tmp_path / "a.fewbits")
    with pytest.raises(OptionError, match="engine 'onnx' is none: did you mean onnxruntime"):
        fb.load(tmp_path / "a.fewbits", engine="onnx")


def test_what_a_hint_allows() -> None:
    hint = typing.Literal["on", 1] | float | None
    for value in ("on", 1, 2.5, None):
        check_option("x", value, hint)
    for value in ("off", 2, [], float):
        with pytest.raises(OptionError, match="x = "):
            check_option("x", value, hint)


def test_a_dataclass_is_checked_and_stays_itself() -> None:
    assert repr(Float(4, 3, specials="fn")).startswith("Float(")
    with pytest.raises(OptionError, match="underflow = 'soft'"):
        Float(4, 3, underflow="soft")

    @options_checked
    def positional(first: int, way: typing.Literal["up", "down"] = "up", *, last: int = 0) -> tuple[int, str, int]:
        """Kept."""
        return first, way, last

    assert positional(1, "down", last=2) == (1, "down", 2) and positional.__doc__ == "Kept."
    with pytest.raises(OptionError, match="way = 'left'"):
        positional(1, "left")
