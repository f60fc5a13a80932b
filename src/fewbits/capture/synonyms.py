"""One name for each operator: calls that PyTorch has several names for, under the plainest one.

A call that writes into its first argument is the call that does not; one that asks for a memory layout is the one that
asks for none.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from fewbits.capture.recurrent_calls import PLAIN_CALLS
from fewbits.graph.graph import Shape

aten = torch.ops.aten

Arguments = dict[str, Any]
Plain = tuple[Callable[..., Any], Arguments]


class Tensors:
    """What is known of the tensors a call reads, by argument: shapes and types."""

    def __init__(self, shapes: Mapping[str, Shape], dtypes: Mapping[str, torch.dtype]):
        self.shapes, self.dtypes = shapes, dtypes


def out_of_place(target: Any) -> Any | None:
    """The call that gives what an in-place call writes; None for a call that writes into none of its arguments, or that
    has no such twin."""
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable or not (word := _word(target)).endswith("_"):
        return None
    return _twin(target, word.removesuffix("_"))


def in_place(target: Any) -> Any | None:
    """The call that writes what `target` gives into its first argument; None where there is none."""
    return _twin(target, f"{_word(target)}_") if hasattr(target, "_schema") else None


def _word(target: Any) -> str:
    return str(target).removeprefix("aten.").partition(".")[0]


def _twin(target: Any, word: str) -> Any | None:
    """The call of that word that takes the same arguments."""
    def arguments(call: Any) -> list[tuple[str, str]]:  # the first one is `self` there, whatever it is here
        return [(argument.name * bool(i), str(argument.type)) for i, argument in enumerate(call._schema.arguments)]

    packet = getattr(aten, word, None)
    twins = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    return next((twin for twin in twins if arguments(twin) == arguments(target)), None)


def plain_call(target: Any, arguments: Arguments, known: Tensors) -> Plain:
    """The call under its plainest name, which gives the same numbers."""
    while (rule := _RULES.get(target)) is not None:
        found = rule(arguments, known)
        if found is None:
            break
        target, arguments = found
    return target, arguments


Synonym = Callable[[Arguments, Tensors], Plain | None]


def _named(target: Any, **names: str) -> Synonym:
    """Another name for the same call, some of its arguments under other names."""
    return lambda given, known: (target, {names.get(name, name): value for name, value in given.items()})


def _as_dtype(given: Arguments, known: Tensors) -> Plain:
    dtype = given.get("dtype")
    return aten.to.dtype, {"self": given["self"], "dtype": known.dtypes["self"] if dtype is None else dtype,
                           "non_blocking": False, "copy": False, "memory_format": None}


def _as_other(given: Arguments, known: Tensors) -> Plain:
    return _as_dtype({"self": given["self"], "dtype": known.dtypes["other"]}, known)


def _like_other(given: Arguments, known: Tensors) -> Plain | None:
    sizes = known.shapes["other"]
    if sizes.count(None) > 1:
        return None
    return aten.reshape.default, {"self": given["self"], "shape": [-1 if size is None else size for size in sizes]}


def _expanded_as(given: Arguments, known: Tensors) -> Plain | None:
    own, sizes = known.shapes["self"], known.shapes["other"]
    old = (*[1] * (len(sizes) - len(own)), *own)
    if any(size is None and before is not None for before, size in zip(old, sizes, strict=True)):
        return None
    return aten.expand.default, {"self": given["self"], "size": [-1 if size is None else size for size in sizes],
                                 "implicit": False}


def _swapped(first: str, second: str) -> Synonym:
    return lambda given, known: (aten.transpose.int, {"self": given["self"], "dim0": given[first],
                                                      "dim1": given[second]})


def _last_two(given: Arguments, known: Tensors) -> Plain:
    return aten.transpose.int, {"self": given["self"], "dim0": -2, "dim1": -1}


def _reversed(given: Arguments, known: Tensors) -> Plain:
    return aten.permute.default, {"self": given["self"], "dims": list(range(len(known.shapes["self"])))[::-1]}


def _moved(given: Arguments, known: Tensors) -> Plain:
    rank = len(known.shapes["self"])
    source, target = ([axis % rank for axis in (value if isinstance(value, list | tuple) else [value])]
                      for value in (given["source"], given["destination"]))
    rest = iter([axis for axis in range(rank) if axis not in source])
    places = dict(zip(target, source, strict=True))
    return aten.permute.default, {"self": given["self"],
                                  "dims": [places[axis] if axis in places else next(rest) for axis in range(rank)]}


def _bits(name: str) -> Synonym:
    """`&`, `|` and `^`: of truth values the logical operator, of numbers the one on their bits."""
    def rule(given: Arguments, known: Tensors) -> Plain:
        first, second = given["self"], given["other"]
        numbers = isinstance(second, bool | int)
        if known.dtypes["self"] is torch.bool and (not numbers) and known.dtypes.get("other") is torch.bool:
            return getattr(aten, f"logical_{name}").default, {"self": first, "other": second}
        return getattr(getattr(aten, f"bitwise_{name}"), "Scalar" if numbers else "Tensor"), {
            "self": first, "other": second}

    return rule


def _bits_of_truth(name: str) -> Synonym:
    def rule(given: Arguments, known: Tensors) -> Plain | None:
        if known.dtypes["self"] is not torch.bool or known.dtypes.get("other", torch.bool) is not torch.bool:
            return None
        return getattr(aten, f"logical_{name}").default, given

    return rule


def _with_alpha(target: Any) -> Synonym:
    return lambda given, known: (target, {"self": given["self"], "other": given["other"],
                                          "alpha": given.get("alpha", 1)})


def _tiled(given: Arguments, known: Tensors) -> Plain:
    times = list(given["dims"])
    times = [1] * (len(known.shapes["self"]) - len(times)) + times
    return aten.repeat.default, {"self": given["self"], "repeats": times}


def _narrow(given: Arguments, known: Tensors) -> Plain:
    return aten.slice.Tensor, {"self": given["self"], "dim": given["dim"], "start": given["start"],
                               "end": given["start"] + given["length"], "step": 1}


_RULES: dict[Any, Synonym] = {
    **{ours: _named(plain) for ours, plain in PLAIN_CALLS.items()},
    aten.view.default: _named(aten.reshape.default, size="shape"), aten.view_as.default: _like_other,
    aten._unsafe_view.default: _named(aten.reshape.default, size="shape"),
    aten.reshape_as.default: _like_other, aten.expand_as.default: _expanded_as,
    aten.to.device: _as_dtype, aten.to.dtype_layout: _as_dtype, aten._to_copy.default: _as_dtype,
    aten.type_as.default: _as_other, aten.to.other: _as_other,
    aten.swapaxes.default: _swapped("axis0", "axis1"), aten.swapdims.default: _swapped("dim0", "dim1"),
    aten.mT.default: _last_two, aten.mH.default: _last_two, aten.adjoint.default: _last_two,
    aten.numpy_T.default: _reversed,
    aten.movedim.int: _moved, aten.movedim.intlist: _moved, aten.moveaxis.int: _moved, aten.moveaxis.intlist: _moved,
    aten.__and__.Tensor: _bits("and"), aten.__and__.Scalar: _bits("and"),
    aten.__or__.Tensor: _bits("or"), aten.__or__.Scalar: _bits("or"),
    aten.__xor__.Tensor: _bits("xor"), aten.__xor__.Scalar: _bits("xor"),
    aten.bitwise_and.Tensor: _bits_of_truth("and"), aten.bitwise_or.Tensor: _bits_of_truth("or"),
    aten.bitwise_xor.Tensor: _bits_of_truth("xor"), aten.bitwise_not.default: _bits_of_truth("not"),
    aten.min.other: _named(aten.minimum.default), aten.max.other: _named(aten.maximum.default),
    aten.tile.default: _tiled,
    aten.concatenate.default: _named(aten.cat.default), aten.concat.default: _named(aten.cat.default),
    aten.split.sizes: _named(aten.split_with_sizes.default, split_size="split_sizes"),
    aten.narrow.default: _narrow,
    aten.bmm.default: _named(aten.matmul.default, mat2="other"),
    aten.mm.default: _named(aten.matmul.default, mat2="other"),
    aten.multiply.Tensor: _named(aten.mul.Tensor), aten.mul.Scalar: _named(aten.mul.Tensor),
    aten.divide.Tensor: _named(aten.div.Tensor), aten.true_divide.Tensor: _named(aten.div.Tensor),
    aten.div.Scalar: _named(aten.div.Tensor),
    aten.subtract.Tensor: _named(aten.sub.Tensor), aten.add.Scalar: _with_alpha(aten.add.Tensor),
    aten.sub.Scalar: _with_alpha(aten.sub.Tensor),
    aten.clip.default: _named(aten.clamp.default), aten.clip.Tensor: _named(aten.clamp.Tensor),
    aten.absolute.default: _named(aten.abs.default), aten.negative.default: _named(aten.neg.default),
    aten.greater.Scalar: _named(aten.gt.Scalar), aten.less.Scalar: _named(aten.lt.Scalar),
    aten.special_erf.default: _named(aten.erf.default),
}
"""By the call that has a plainer name; the arguments are named, and stand in the order of the schema."""

SYNONYMS = frozenset(_RULES)
