"""Networks by name, as typed on the command line: ours, and the user's own."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType

from torch import nn

from fewbits.data import normalize
from fewbits.data.normalize import Normalize
from fewbits.data.preparation import Preparation
from fewbits.errors import DataError
from fewbits.graph.model import Model
from fewbits.options import choice
from fewbits.pt2.pt2 import read_pt2
from fewbits.tasks.caffe_cifar import caffe_cifar10_full
from fewbits.tasks.char_gpt import char_gpt
from fewbits.tasks.digits_net import digits_net
from fewbits.tasks.lenet import lenet5, lenet_300_100, lenet_caffe
from fewbits.tasks.lenet_twn import lenet_twn
from fewbits.tasks.llama import stories260k
from fewbits.tasks.mobilenet_v1 import mobilenet_v1, mobilenet_v1_025
from fewbits.tasks.mobilenet_v2 import mobilenet_v2
from fewbits.tasks.resnet_cifar import resnet20, resnet32, resnet44, resnet56
from fewbits.tasks.shufflenet_v2 import shufflenet_v2_05
from fewbits.tasks.squeezenet import squeezenet
from fewbits.tasks.transformer import digits_transformer
from fewbits.tasks.vgg_cifar import vgg7, vgg_small


@dataclass(frozen=True)
class Task:
    """A network and what it takes.

    build: makes the network, untrained. example_shape: of one input without the batch axis. data_hint: what
    to write after `--data`. normalize, example_shape and data_hint are None where only the user knows them, and
    normalize and data_hint for language models. tokens: how many token numbers such a model knows; its input is int64.
    label_offset: what is added to the labels of data, 1 where the network's class 0 is the background.
    """

    name: str
    build: Callable[[], nn.Module]
    normalize: Normalize | None = None
    example_shape: tuple[int, ...] | None = None
    data_hint: str | None = None
    tokens: int | None = None
    label_offset: int = 0

    @property
    def preparation(self) -> Preparation:
        """What a saved network keeps of its task."""
        return Preparation(self.normalize, self.label_offset)


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("digits_net", digits_net, normalize.DIGITS, (1, 8, 8), "digits"),
            Task("lenet5", lenet5, normalize.MNIST, (1, 28, 28), "mnist:DIR"),
            Task("lenet_300_100", lenet_300_100, normalize.MNIST, (1, 28, 28), "mnist:DIR"),
            Task("lenet_caffe", lenet_caffe, normalize.MNIST, (1, 28, 28), "mnist:DIR"),
            Task("resnet20", resnet20, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("resnet32", resnet32, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("resnet44", resnet44, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("resnet56", resnet56, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("mobilenet_v2", mobilenet_v2, normalize.SYMMETRIC, (3, 224, 224), "images:DIR", label_offset=1),
            Task("lenet_twn", lenet_twn, normalize.MNIST, (1, 28, 28), "mnist:DIR"),
            Task("caffe_cifar10_full", caffe_cifar10_full, normalize.CAFFE_CIFAR, (3, 32, 32), "cifar10:DIR"),
            Task("vgg7", vgg7, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("vgg_small", vgg_small, normalize.IMAGENET, (3, 32, 32), "cifar10:DIR"),
            Task("mobilenet_v1", mobilenet_v1, normalize.IMAGENET, (3, 224, 224), "images:DIR"),
            Task("mobilenet_v1_025", mobilenet_v1_025, normalize.IMAGENET, (3, 224, 224), "images:DIR"),
            Task("squeezenet", squeezenet, normalize.CAFFE_IMAGENET, (3, 227, 227), "images:DIR"),
            Task("shufflenet_v2_05", shufflenet_v2_05, normalize.IMAGENET, (3, 224, 224), "images:DIR"),
            Task("digits_transformer", digits_transformer, normalize.DIGITS, (1, 8, 8), "digits"),
            Task("char_gpt", char_gpt, example_shape=(128,), tokens=65),
            Task("stories260k", stories260k, example_shape=(128,), tokens=512),
        )
    }
)


def resolve(text: str) -> Task:
    """The task named by `text`: one of `TASKS`, a .pt2 file, or `mynet.py:MyNet` or `package.module:factory`, a class
    or function of no arguments.

    A file may be anywhere and imports what lies beside it; modules are looked for in the working directory first.
    Raises FileError for a .pt2 file that cannot be read, and DataError when there is no such network, module or
    factory; the task's `build` raises it when the factory fails or returns no nn.Module.
    """
    if text in TASKS:
        return TASKS[text]
    if text.endswith(".pt2"):
        return _of_file(read_pt2(text), text)
    module_name, colon, attribute = text.partition(":")
    if not colon and text.endswith(".py"):
        raise DataError(f"{text!r} names a file and no network in it; write {text}:MyNet, a class or function of no "
                        "arguments.")
    if not (colon and module_name and attribute):
        raise DataError(
            f"There is no network {text!r} (your own is a .pt2 file, mynet.py:MyNet or package.module:factory): "
            f"{choice(text, TASKS)}"
        )
    folder = os.getcwd()
    if module_name.endswith(".py"):
        path = Path(module_name)
        if not path.is_file():
            raise DataError(f"{text!r}: there is no file {path}; mend the name or go to its directory.")
        folder, module_name = str(path.resolve().parent), path.stem
    factory = _find(text, module_name, attribute, folder)
    return Task(text, partial(_build, text, factory, folder))


def _of_file(model: Model, path: str) -> Task:
    shape = model.graph.inputs[0].shape[1:] if len(model.graph.inputs) == 1 else None
    known = None if shape is None else tuple(size for size in shape if size is not None)
    return Task(path, lambda: model, example_shape=known)


def _find(text: str, module_name: str, attribute: str, folder: str) -> Callable[[], object]:
    try:
        with _on_path(folder):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # The module itself or a package above it; otherwise something that the module imports is absent.
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise DataError(
                f"{text!r}: there is no module {error.name} in {folder} or installed; "
                "mend the name or go to its directory."
            ) from None
        raise DataError(f"{text!r}: {module_name} needs {error.name}, absent here; install it.") from error
    except (Exception, SystemExit) as error:  # whatever the user's file does when it is run
        raise DataError(
            f"{text!r}: {module_name} fails on import with {_told(error)}; "
            f"mend it until `import {module_name}` works."
        ) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        near = get_close_matches(attribute, dir(module), 1)
        raise DataError(f"{text!r}: {module_name} has no {attribute}; name a function of that module"
                        + (f", such as {near[0]}." if near else "."))
    if isinstance(factory, nn.Module) or not callable(factory):
        raise DataError(
            f"{text!r}: {attribute} is a {type(factory).__name__}; name a function that returns the network."
        )
    return factory


def _build(text: str, factory: Callable[[], object], folder: str) -> nn.Module:
    try:
        with _on_path(folder):
            model = factory()
    except Exception as error:  # whatever the user's function does
        raise DataError(
            f"{text!r} fails with {_told(error)}; mend it so that it builds the network without arguments."
        ) from error
    if not isinstance(model, nn.Module):
        raise DataError(f"{text!r} returns a {type(model).__name__}; it must return an nn.Module.")
    return model


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    """As `python -m` does for the working directory; an installed `fewbits` command starts without it."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
