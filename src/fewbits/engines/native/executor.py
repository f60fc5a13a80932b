"""A Program through the native kernels: compiled once for each size of its inputs into a flat list of calls.

Values lie in one arena (program/memory.py); weights are packed once for all sizes. Nodes without a form run in torch,
on arrays of the same arena, and are counted. Which thread does what changes no code.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch

from fewbits.engines.native import FORMS
from fewbits.engines.native.context import Context, Step, Stored, plain
from fewbits.engines.native.pieces import is_by_row, rows_at_once
from fewbits.engines.torch import KERNELS
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.engines.torch.nnpack import without_nnpack
from fewbits.engines.torch.steps import TorchKernel
from fewbits.errors import KernelError
from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls, aligned
from fewbits.program import reference
from fewbits.program.memory import Arena, Buffer, arranged
from fewbits.program.ops import Dequantize, ProgramNode, reads
from fewbits.program.program import Program

_FLOATS = {"float32": np.float32, "int64": np.int64}


_READ_IN_PLACE = 1 << 16
"""Bytes from which on an input is worth reading where it lies."""

_SIZES = 8
"""So many sizes of inputs stay compiled, each with an arena of its own; the oldest goes first."""


_Key = tuple[int, tuple[tuple[tuple[int, ...], np.dtype], ...], tuple[str, ...], bool]
"""How many inputs there are, sizes and types of those that the program has, values kept, whether float32 is wanted."""


@dataclass(frozen=True, eq=False)
class _Compiled:
    """takes: names, sizes and types of its inputs; parts: native calls and Python functions, in turns; inputs, outputs:
    arrays in the arena, and what storing added; in_place: inputs that these calls can read where they lie."""

    takes: tuple[tuple[str, tuple[int, ...], np.dtype], ...]
    parts: tuple[Callable[[], None], ...]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, tuple[np.ndarray, int, np.dtype]]
    in_place: Mapping[str, tuple[structs.Quantize, ...]]
    arena: Arena
    memory: np.ndarray
    fallbacks: tuple[str, ...]


class NativeExecutor:
    """As TorchExecutor, through the native library. Raises KernelError where there is none.

    threads: at most so many; the codes do not depend on them. Several executors may run at once; runs of one wait for
    each other.
    """

    def __init__(self, program: Program, threads: int = 1):
        if library.native() is None:
            raise KernelError("there is no native library: python -m fewbits.kernels.build makes it")
        self.program, self.threads = program, threads
        self._packed: dict[str, Any] = {}
        self._torch: dict[str, TorchKernel] = {}
        self._compiled: dict[_Key, _Compiled] = {}
        self._by_row: dict[tuple[str, ...], bool] = {}
        self._whole: set[_Key] = set()  # sizes that are not run in pieces
        self._row_bytes: dict[tuple[tuple[str, ...], bool], int] = {}  # of the arena of one row
        self._last: _Compiled | None = None  # of real numbers, at the level in use
        self._choices, self._level, self._lock = library.choices(), library.level(), Lock()

    def run(self, inputs: Mapping[str, np.ndarray], keep: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Codes of the program's outputs and of the values named in `keep`, as `reference.run` gives them."""
        return self._run(inputs, tuple(keep), real=False)

    def real(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The float32 numbers that the codes of the program's outputs stand for, in the same flat list of calls."""
        with self._lock:
            last = self._last
            if last is not None and library.choices() == self._choices and _is_taken(last, inputs):
                return self._outputs_of(last, inputs, (), real=True)
        return self._run(inputs, (), real=True)

    def _run(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool) -> dict[str, np.ndarray]:
        key = self._key(inputs, keep, real)
        if key in self._whole:
            return self._once(inputs, keep, real, key)
        rows = self._rows(inputs, keep, real)
        if rows is None:
            if key is not None and len(self._whole) < _SIZES:
                self._whole.add(key)
            return self._once(inputs, keep, real, key)
        count = len(next(iter(inputs.values())))
        found = [self._once({name: array[first:first + rows] for name, array in inputs.items()}, keep, real)
                 for first in range(0, count, rows)]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    def _rows(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool) -> int | None:
        """How many rows of a batch to run at once, None for all (pieces.py)."""
        counts = {array.shape[:1] for array in inputs.values() if isinstance(array, np.ndarray)}
        if len(counts) != 1 or () in counts:  # what is wrong with them is said where they are checked
            return None
        ((count,),) = counts
        if count < 2:
            return None
        known = self._by_row.get(keep)
        if known is None:
            known = self._by_row[keep] = is_by_row(self.program, (*self.program.outputs, *keep))
        if not known:
            return None
        if (keep, real) not in self._row_bytes:
            with self._lock:
                one = {name: array[:1] for name, array in inputs.items()}
                self._row_bytes[keep, real] = self._for(one, keep, real).arena.size
        rows = rows_at_once(count, count * self._row_bytes[keep, real])
        return None if rows == count else rows

    def _key(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool) -> _Key | None:
        """What a compiled list of calls depends on; None for inputs that are to be refused."""
        try:
            sizes = tuple([(inputs[name].shape, inputs[name].dtype) for name in self.program.inputs])
        except (KeyError, AttributeError):
            return None
        return len(inputs), sizes, keep, real

    def _once(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool,
              key: _Key | None = None) -> dict[str, np.ndarray]:
        with self._lock:
            compiled = self._for(inputs, keep, real, key)
            if real and key in self._whole:
                self._last = compiled
            return self._outputs_of(compiled, inputs, keep, real)

    def _outputs_of(self, compiled: _Compiled, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...],
                    real: bool) -> dict[str, np.ndarray]:
        given = {name: inputs[name] for name in compiled.inputs}  # held: a mapping may make them when asked (NpzFile)
        for name, array in compiled.inputs.items():
            _put(given[name], array, compiled.in_place.get(name, ()))
        try:
            for part in compiled.parts:
                part()
        except KernelError:  # numbers of rows that are not there, NaN: the definition says it in words
            codes = TorchExecutor(self.program).run(given, keep)
            return {name: self.program.real(name, array) for name, array in codes.items()} if real else codes
        return {name: _as_codes(*output) for name, output in compiled.outputs.items()}

    def fallbacks(self, inputs: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """Names of the nodes that run in torch."""
        with self._lock:
            return self._for(inputs, (), False).fallbacks

    def arena(self, inputs: Mapping[str, np.ndarray]) -> Arena:
        """Where the values lie for inputs of these sizes."""
        with self._lock:
            return self._for(inputs, (), False).arena

    # --------------------------------------------------------------------------------- compiling

    def _for(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool,
             key: _Key | None = None) -> _Compiled:
        """What runs inputs of these sizes. Raises ProgramError as `reference.check_inputs` does."""
        if library.choices() != self._choices:
            self._choices = library.choices()
            if library.level() != self._level:
                self._level, self._packed, self._compiled, self._last = library.level(), {}, {}, None
        key = self._key(inputs, keep, real) if key is None else key
        compiled = None if key is None else self._compiled.get(key)
        if compiled is None:
            checked = reference.check_inputs(self.program, inputs)
            compiled = self._compile(checked, keep, real)
            if key is not None:
                if len(self._compiled) >= _SIZES:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[key] = compiled
        return compiled

    def _compile(self, inputs: Mapping[str, np.ndarray], keep: tuple[str, ...], real: bool) -> _Compiled:
        program, wanted = self.program, dict.fromkeys([*self.program.outputs, *keep])
        context = Context(program, self._packed, frozenset(wanted))
        fallbacks = []
        for name, array in inputs.items():
            context.stored[name] = Stored(name, array.shape, plain(array.ndim), array.dtype)
        for node in program.nodes:
            form = FORMS.get(type(node))
            made = form(context, node) if form is not None else None
            if made is None:
                context.stored |= self._in_torch(context, node)
                fallbacks.append(node.name)
            else:
                context.stored[node.name] = made
        ends = {name: _plainly(context, context.stored[name]) for name in wanted}
        if real:
            ends = {name: self._decoded(context, name, value) for name, value in ends.items()}
        return self._placed(context, ends, tuple(inputs), tuple(fallbacks))

    def _decoded(self, context: Context, name: str, value: Stored) -> Stored:
        """What the codes of an output stand for, in float32."""
        if self.program.values[name].encoding is None:
            return value
        node = Dequantize(f"{name} as float32", name)
        context.stored[name] = value
        made = FORMS[Dequantize](context, node)
        return _plainly(context, self._in_torch(context, node)[node.name] if made is None else made)

    def _placed(self, context: Context, ends: Mapping[str, Stored], inputs: tuple[str, ...],
                fallbacks: tuple[str, ...]) -> _Compiled:
        """Memory, and the calls in it."""
        spans: dict[str, list[int]] = {}
        sizes: dict[str, int] = {}

        def needed(value: Stored, step: int) -> None:
            if isinstance(value.buffer, str):
                sizes[value.buffer] = max(value.bytes, sizes.get(value.buffer, 0))
                spans.setdefault(value.buffer, [step, step])[1] = step

        for name in inputs:
            needed(context.stored[name], 0)
        for number, step in enumerate(context.steps):
            for part in (step, *step.body):  # what a body has lives through all its turns
                for value in (*part.reads, part.writes):
                    needed(value, number)
        for value in ends.values():
            needed(value, len(context.steps))
        arena = arranged([Buffer(name, sizes[name], *spans[name]) for name in spans])
        memory = aligned(max(arena.size, 1))

        def view(value: Stored) -> np.ndarray:
            if isinstance(value.buffer, np.ndarray):
                return value.view(value.buffer.view(np.uint8).reshape(-1))
            return value.view(memory[arena.offsets[value.buffer]:])

        parts: list[Callable[[], None]] = []
        calls: list[structs.Call] = []
        call_of: dict[int, structs.Call] = {}
        kept: list[Any] = []

        def close() -> None:
            if calls:
                parts.append(Calls(tuple(calls), tuple(kept), self.threads).run)
                calls.clear()
                kept.clear()

        for number, step in enumerate(context.steps):
            arrays = [view(value) for value in (*step.reads, step.writes)]
            if step.make is not None:
                inner = []
                for part in step.body:
                    assert part.make is not None
                    parts_of = [view(value) for value in (*part.reads, part.writes)]
                    call, more = part.make(*parts_of)
                    inner.append(call)
                    kept.append((more, parts_of))
                call, more = step.make(inner, *arrays) if step.body else step.make(*arrays)
                calls.append(call)
                call_of[number] = call
                kept.append((more, arrays))
            else:
                close()
                fallback = step.fallback
                assert fallback is not None
                parts.append(lambda fallback=fallback, arrays=arrays: fallback(*arrays))
        close()
        outputs = {name: (view(value), value.added, self._dtype(name, value)) for name, value in ends.items()}
        takes = tuple((name, context.stored[name].shape, context.stored[name].dtype) for name in inputs)
        in_place = {}
        for name in inputs:
            readers = [call_of.get(number) for number, step in enumerate(context.steps)
                       if any(value.memory == name for part in (step, *step.body) for value in part.reads)]
            quantized = [call for call in readers if isinstance(call, structs.Quantize)]
            kept_as_it_is = any(value.memory == name for value in ends.values())
            if len(quantized) == len(readers) and not kept_as_it_is and sizes[name] >= _READ_IN_PLACE:
                in_place[name] = tuple(quantized)
        return _Compiled(takes, tuple(parts), {name: view(context.stored[name]) for name in inputs}, outputs, in_place,
                         arena, memory, fallbacks)

    def _dtype(self, name: str, value: Stored) -> np.dtype:
        """Of the codes of a value, or of the numbers that it is."""
        encoding = self.program.values[name].encoding
        return value.dtype if encoding is None or value.dtype == np.float32 else encoding.format.dtype

    def _in_torch(self, context: Context, node: ProgramNode) -> dict[str, Stored]:
        """A node that runs in torch on the arrays of the arena; its results have their axes in their order."""
        if node.name not in self._torch:
            self._torch[node.name] = KERNELS[type(node)](self.program, node)
        step, names = self._torch[node.name], reads(node)
        values = [_plainly(context, context.stored[name]) for name in names]
        kinds = [(value.added, self._dtype(name, value)) for name, value in zip(names, values, strict=True)]

        def computed(*arrays: np.ndarray) -> list[np.ndarray]:
            with torch.no_grad(), without_nnpack():
                made = step(*(torch.from_numpy(_as_codes(array, *kind)) for array, kind in zip(
                    arrays, kinds, strict=True)))
            return [each.numpy() for each in (made if isinstance(made, tuple) else (made,))]

        # What it gives for zeros says how large its result is.
        trials = computed(*(value.view(value.buffer.view(np.uint8).reshape(-1)) if isinstance(value.buffer, np.ndarray)
                            else np.zeros(value.shape, value.dtype) for value in values))
        outs = {}
        for name, trial in zip(node.written, trials, strict=True):
            coded = name in self.program.values and self.program.values[name].encoding is not None
            stored = np.dtype(np.uint8) if coded and trial.dtype == np.int8 else trial.dtype
            outs[name] = Stored(name, trial.shape, plain(trial.ndim), stored, context.added(name))
        first, *others = outs.values()
        left: list[np.ndarray] = []  # what was written beside the first, until the steps behind take it

        def put(found: np.ndarray, out: Stored, array: np.ndarray) -> None:
            array[...] = found.view(np.uint8) ^ np.uint8(128) if out.added else found

        def run(*arrays: np.ndarray) -> None:
            found, *left[:] = computed(*arrays[:-1])
            put(found, first, arrays[-1])

        context.steps.append(Step(node.name, tuple(values), first, fallback=run))
        for number, out in enumerate(others):
            context.steps.append(Step(node.name, (), out, fallback=lambda array, number=number, out=out: put(
                left[number], out, array)))
        return outs


def _is_taken(compiled: _Compiled, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether inputs are those that it was compiled for."""
    if len(inputs) != len(compiled.takes):
        return False
    for name, shape, dtype in compiled.takes:
        array = inputs.get(name)
        if type(array) is not np.ndarray or array.shape != shape or array.dtype is not dtype:
            return False
    return True


def _put(given: np.ndarray, array: np.ndarray, readers: tuple[structs.Quantize, ...]) -> None:
    """An input to where those that read it look."""
    if (readers and isinstance(given, np.ndarray) and given.dtype == array.dtype and given.flags.c_contiguous
            and given.flags.aligned):
        array = given
    else:
        array[...] = given
    for call in readers:
        call.x = array.ctypes.data


def _plainly(context: Context, value: Stored) -> Stored:
    """With its axes in their order."""
    return context.ordered(value, plain(len(value.shape)))


def _as_codes(array: np.ndarray, added: int, dtype: np.dtype) -> np.ndarray:
    """An array of its own, as the program has it."""
    if added:
        return (array ^ np.uint8(added)).view(dtype)
    return array.copy() if array.dtype == dtype else np.array(array, dtype, order="C")
