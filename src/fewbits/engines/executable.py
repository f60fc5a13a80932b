"""A Program as something to call: torch tensors or NumPy arrays in, the model's own structure of the same out."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils import _pytree as pytree

from fewbits.engines.engine import Arrays, Engine, Prepared
from fewbits.engines.fastest import Chosen
from fewbits.engines.misfit import raise_misfit
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import DataError, FewbitsError, VerificationError
from fewbits.program.inputs import Batch, bind, check, with_batch_axis, without_batch_axis
from fewbits.program.ops import accumulator_bound
from fewbits.program.program import Program, fill
from fewbits.program.value import PLAIN

Result = TypeVar("Result")
_FLOAT = np.dtype(np.float32)
_EXACT = 2**23
"""Below which a float32 product with a scale still tells the integer that was scaled."""


class Executable:
    """A Program with an engine to run it: called like the float model, it computes with integers only.

    engine: a name of engines/registry.py, or an Engine: `fastest` (chosen for the program: engines/fastest.py),
    `native` (our own kernels), `torch`, `reference` (the definition, slow), `onnxruntime`, or what another package
    offers. Engines that promise it give the same codes. Raises OptionError for a name that none has,
    UnsupportedError where the engine does not run the program, or not here.
    """

    def __init__(self, program: Program, engine: str | Engine = "fastest"):
        self.program = program
        self._image = _image_of(program)
        self._engine = engine_of(engine)
        self._prepared = self._made_ready()

    @property
    def engine(self) -> str:
        """The name of the engine that runs it; of `fastest`, that which is chosen."""
        return self._prepared.engine.name if isinstance(self._prepared, Chosen) else self._engine.name

    @property
    def engine_told(self) -> str:
        """The engine, how it is set up, and why it was chosen, in words."""
        if isinstance(self._prepared, Chosen):
            return f"{self.engine} ({self._prepared.reason})"
        return f"{self.engine} ({self._engine.setting})" if self._engine.setting else self.engine

    def __call__(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """Dequantized float32 tensors in the structure of the model's own output.

        Called with the model's arguments: one tensor, several by position, or all by name. Raises DataError
        when they are not what the model takes. One input without its batch axis gives one result without it. NumPy
        arrays may stand for tensors: given nothing else, it gives arrays.
        """
        bound = self._bound(kwargs or (args[0] if len(args) == 1 else args))
        numbers = self._run(bound, self._prepared.numbers)
        return self._filled(numbers, bound)

    def codes(self, *args: Any, **kwargs: torch.Tensor) -> Any:
        """The integers behind the outputs, in the same structure: activation codes, or int32 accumulators; an output
        that the recipe left in float is that float32. Raises VerificationError for accumulators that an engine gives as
        float32 numbers alone, and that these do not tell."""
        bound = self._bound(kwargs or (args[0] if len(args) == 1 else args))
        results = self._run(bound, self._prepared.run)
        return self._filled({name: results.codes[name] if name in results.codes
                             else self._behind(name, results.numbers[name]) for name in self.program.outputs}, bound)

    def _run(self, bound: "_Bound", run: Callable[[Arrays], Result]) -> Result:
        try:
            return run(bound.inputs)
        except FewbitsError:
            raise
        except Exception as error:  # what an engine raises where shapes do not meet
            self._check_together(bound, error)
            raise_misfit(self.program, error, bound.inputs)
            raise

    def _check_together(self, bound: "_Bound", error: Exception) -> None:
        """After an engine's error: raises DataError where inputs have different batches, or different free sizes on one
        axis."""
        sizes: dict[int | None, set[int]] = {}
        for name, array in bound.inputs.items():
            value = self.program.values[name]
            for axis, size in enumerate(array.shape):
                if value.taken[axis] is None:
                    sizes.setdefault(axis if value.shape[axis] is not None else None, set()).add(size)
        if any(len(each) > 1 for each in sizes.values()):
            shown = ", ".join(f"{name!r} {list(array.shape)}" for name, array in bound.inputs.items())
            raise DataError(f"inputs of these sizes do not go together: {shown}; give all the same batch, and the same "
                            "free sizes, as the example has") from error

    def _bound(self, batch: Batch) -> "_Bound":
        """Raises DataError for what the model does not take."""
        known = self._one_image(batch)
        if known is not None:
            return known
        batch, as_arrays = _as_tensors(batch)
        given = bind(self.program.inputs, batch)
        inputs, alone = with_batch_axis(given, {name: self.program.values[name].taken for name in given})
        for name, tensor in inputs.items():
            check(tensor, name, self.program.values[name].taken, self.program.values[name].dtype)
        return _Bound({name: tensor.detach().cpu().numpy() for name, tensor in inputs.items()}, alone, as_arrays)

    def _one_image(self, batch: Batch) -> "_Bound | None":
        """The most frequent batch, one float32 tensor or array of the right shape, checked in a microsecond; None for
        any other, of which `_bound` says what is wrong. A small network runs in ten."""
        if self._image is None:
            return None
        name, shape = self._image
        if type(batch) is np.ndarray:
            if batch.dtype is not _FLOAT or batch.shape[1:] != shape or not len(batch):
                return None
            flags = batch.flags
            return _Bound({name: batch}, False, True) if flags.c_contiguous and flags.writeable else None
        if (type(batch) is not torch.Tensor or batch.dtype is not torch.float32 or batch.device.type != "cpu"
                or tuple(batch.shape[1:]) != shape or not len(batch)):
            return None
        return _Bound({name: batch.detach().numpy()}, False, False)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copies: without the prepared steps, which are made again."""
        return {name: value for name, value in vars(self).items() if name != "_prepared"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepared = self._made_ready()

    def _made_ready(self) -> Prepared:
        try:
            return self._engine.prepare(self.program)
        except FewbitsError:
            raise
        except Exception as error:
            raise_misfit(self.program, error)
            raise

    def _behind(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """The codes that stand for an output's numbers."""
        if self.program.kind(name) in PLAIN:
            return numbers
        encoding = self.program.encoding(name)
        if not self.program.is_accumulator(name):
            return encoding.encode(numbers).codes
        if accumulator_bound(self.program, self.program.by_name[name]).magnitude >= _EXACT:
            raise VerificationError(f"engine {self.engine} gives the sums of {name!r} as float32 numbers, which do not "
                                    "tell integers beyond 23 bits: take engine='torch' for their codes")
        scale = encoding.block.expand(encoding.scale, numbers.shape).astype(np.float64)
        return np.rint(numbers / scale).astype(encoding.format.dtype)

    def _filled(self, arrays: Arrays, bound: "_Bound") -> Any:
        given = arrays if bound.as_arrays else {name: torch.from_numpy(array) for name, array in arrays.items()}
        filled = fill(self.program.structure, given)
        return without_batch_axis(filled) if bound.alone else filled

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.program.nodes)} nodes, {self.program.profile.name}, {self.engine})"


def _image_of(program: Program) -> tuple[str, tuple[int | None, ...]] | None:
    """The name, and the sizes behind the batch axis, of the only input of a program, where that is float32."""
    name, *others = program.inputs
    value = program.values[name]
    return (name, value.shape[1:]) if not others and value.dtype == "float32" and value.shape[:1] == (None,) else None


class _Bound(NamedTuple):
    """A batch as an engine takes it. alone: whether it is one input without a batch axis; as_arrays: whether its
    results are NumPy arrays."""

    inputs: dict[str, np.ndarray]
    alone: bool
    as_arrays: bool


def _as_tensors(batch: Batch) -> tuple[Batch, bool]:
    """The batch with tensors for arrays, and whether it held nothing else. Raises DataError for an array of a type that
    torch has not."""
    leaves, structure = pytree.tree_flatten(batch)
    if not any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return batch, False
    only = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    return pytree.tree_unflatten([_as_tensor(leaf) for leaf in leaves], structure), only


def _as_tensor(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray):
        return leaf
    try:
        return torch.from_numpy(np.require(leaf, requirements=["C", "W"]))
    except (TypeError, ValueError):
        raise DataError(f"an input is an array of {leaf.dtype}, which the model does not take: convert it first"
                        ) from None
