"""fewbits takes a float PyTorch model and gives back the same model in few bits, with proof.

>>> import fewbits as fb
>>> model = fb.fold(fb.capture(net, example))
>>> sim = fb.calibrate(model, fb.plan(model, "w8a8"), batches)
>>> prog = fb.lower(sim)

The names are those of `public.py`. They, and torch with them, are imported when the first one is used, so that
`fewbits --help` need not wait for them.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import fewbits.rich_once  # noqa: F401  # before all others that import rich
from fewbits.version import __version__ as __version__

if TYPE_CHECKING:
    from fewbits.public import *  # noqa: F403
    from fewbits.public import __all__ as __all__

VERBS_AND_PACKAGES = ("capture", "fold", "lower", "report", "search")
"""Public names that packages have too. Importing such a package binds it to the name, where the function belongs."""


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        if name not in VERBS_AND_PACKAGES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'fewbits' has no attribute {name!r}")
    public = importlib.import_module("fewbits.public")
    if name == "__all__" or name in public.__all__:
        return getattr(public, name)
    if name in globals():  # a package, which the import above has bound
        return globals()[name]
    raise AttributeError(f"module 'fewbits' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("fewbits.public").__all__})
