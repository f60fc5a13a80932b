"""Networks by name: ours, the user's own, and the sentences of the refusals."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fewbits.errors import DataError
from fewbits.tasks.registry import TASKS, resolve

USER_FILE = """
from torch import nn

network = nn.Linear(2, 3)
number = 7

def good():
    import fewbits_test_helper  # found in the working directory at build time too
    return nn.Linear(2, fewbits_test_helper.OUTPUTS)

def needs_an_argument(width):
    return nn.Linear(2, width)

def returns_a_dict():
    return {}

def fails():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's module; what it brings into sys.modules is taken out again."""
    (tmp_path / "fewbits_test_user.py").write_text(USER_FILE)
    (tmp_path / "fewbits_test_helper.py").write_text("OUTPUTS = 3")
    (tmp_path / "fewbits_test_broken.py").write_text("1 / 0")
    (tmp_path / "fewbits_test_script.py").write_text("raise SystemExit(2)")
    (tmp_path / "fewbits_test_needy.py").write_text("import no_such_library")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("user", "helper", "broken", "script", "needy"):
        monkeypatch.delitem(sys.modules, f"fewbits_test_{name}", raising=False)
    return tmp_path


# Networks for ImageNet are built in test_networks.py, on smaller images.
@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.data_hint not in (None, "images:DIR")])
def test_each_task_builds_and_takes_its_example_shape(name: str) -> None:
    task = resolve(name)
    assert task is TASKS[name]
    assert task.example_shape is not None
    assert task.normalize is not None
    x = task.normalize(torch.zeros(2, *task.example_shape, dtype=torch.uint8))
    assert task.build().eval()(x).shape == (2, 10)


def test_a_users_factory_is_found_in_the_working_directory(user_folder: Path) -> None:
    path = list(sys.path)
    task = resolve("fewbits_test_user:good")
    model = task.build()
    assert isinstance(model, nn.Linear)
    assert model.out_features == 3
    assert (task.name, task.normalize, task.example_shape) == ("fewbits_test_user:good", None, None)
    assert sys.path == path


def test_a_users_file_is_found_wherever_it_is(user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = list(sys.path)
    (user_folder / "other").mkdir()
    monkeypatch.chdir(user_folder / "other")
    task = resolve("../fewbits_test_user.py:good")
    assert isinstance(task.build(), nn.Linear)
    assert task.name == "../fewbits_test_user.py:good"
    assert sys.path == path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lenet", r"There is no network 'lenet' \(your own is .* mynet.py:MyNet or .*did you mean lenet5"),
        ("gone.py:Net", r"there is no file gone.py; mend the name"),
        ("fewbits_test_user.py", r"names a file and no network in it; write fewbits_test_user.py:MyNet"),
        (":good", r"There is no network ':good'"),
        ("fewbits_test_user:", r"There is no network 'fewbits_test_user:'"),
        ("no_such_module:net", r"there is no module no_such_module in .* or installed"),
        ("fewbits_test_user.sub:net", r"there is no module fewbits_test_user.sub"),
        ("fewbits_test_needy:net", r"fewbits_test_needy needs no_such_library, absent here; install it"),
        ("fewbits_test_broken:net", r"fewbits_test_broken fails on import with ZeroDivisionError: div"),
        ("fewbits_test_script:net", r"fewbits_test_script fails on import with SystemExit: 2"),
        ("..x:net", r"\.\.x fails on import with TypeError"),
        ("fewbits_test_user:absent", r"fewbits_test_user has no absent; name a function of that module"),
        ("fewbits_test_user:goot", r"has no goot; name a function of that module, such as good"),
        ("fewbits_test_user:number", r"number is a int; name a function that returns the network"),
        ("fewbits_test_user:network", r"network is a Linear; name a function that returns the network"),
    ],
)
def test_refuses_what_is_no_network(user_folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        resolve(text)


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("needs_an_argument", r"fails with TypeError: .*missing 1 required positional argument"),
        ("returns_a_dict", r"returns a dict; it must return an nn.Module"),
        ("fails", r"fails with RuntimeError: no such luck; mend it so that it builds the network"),
    ],
)
def test_refuses_factories_that_do_not_build(user_folder: Path, attribute: str, sentence: str) -> None:
    task = resolve(f"fewbits_test_user:{attribute}")
    with pytest.raises(DataError, match=sentence):
        task.build()
