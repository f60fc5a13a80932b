"""The engines by name: those of fewbits, and those that other packages offer by entry points of the group
`fewbits.engines`, each a callable without arguments that gives an Engine."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from fewbits.engines.engine import Engine
from fewbits.engines.executors import Native, Reference, Torch
from fewbits.engines.fastest import Fastest
from fewbits.engines.onnxruntime import OnnxRuntime
from fewbits.engines.openvino import OpenVino
from fewbits.errors import OptionError, UnsupportedError
from fewbits.options import choice

GROUP = "fewbits.engines"

ENGINES: Mapping[str, Callable[[], Engine]] = {
    "fastest": Fastest, "reference": Reference, "torch": Torch, "native": Native, "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}
"""As each runs by default. `fastest` is the default of all verbs: it chooses for each program (fastest.py)."""


def engine_names() -> tuple[str, ...]:
    """What `engine` takes: the engines of fewbits, then those of other packages."""
    return (*ENGINES, *sorted(entry.name for entry in entry_points(group=GROUP) if entry.name not in ENGINES))


def engine(name: str | Engine) -> Engine:
    """The engine of that name, as it runs by default; an Engine is one already. Raises OptionError for a name that none
    has, UnsupportedError for one that lacks something to run here, and for an entry point that gives no engine."""
    if isinstance(name, Engine):
        return name
    found = ENGINES[name]() if name in ENGINES else _offered(name)
    if found.missing:
        raise UnsupportedError(f"engine {name!r} cannot run: {found.missing}")
    return found


def _offered(name: str) -> Engine:
    for entry in entry_points(group=GROUP, name=name):
        try:
            made = entry.load()()
        except Exception as error:  # another package's code, which may fail in any way
            raise UnsupportedError(f"engine {name!r} of {entry.value} cannot be made ({type(error).__name__}: {error})"
                                   ) from error
        if not isinstance(made, Engine):
            raise UnsupportedError(f"{entry.value} is offered as engine {name!r} and gives a {type(made).__name__}, "
                                   "not an Engine")
        return made
    raise OptionError(f"engine {name!r} is none: {choice(str(name), engine_names())}")
