"""Frozen dataclasses as JSON, with their arrays moved out into named tensors.

The declared field types say everything, so a new node, format or field is stored without a line here:

    dataclass            {"field": …}, without the fields that equal their declared default
    one of a union       {"Class": {"field": …}}; a node of a program is one of all that have a record
    tuple, Mapping       [ … ], { … }
    format               its text, such as "int8-narrow", where `parse` gives the same format back
    array of one element a number in as many lists as it has axes: 0.5, [[3]]; float32 or int32
    Any                  what a model returns: "a", null, {"list": […]}, {"tuple": […]}, {"dict": [[k, …]]}
    any other array      {"shape": [16, 3, 3, 3]}, and a tensor named after the place: `conv1.weight`

Codes of a `Quantized` are packed (docs/file-format.md, "Packed codes"). Decoding takes nothing on trust:
whatever differs from the declared types is a `Refusal` that names the place.
"""

import dataclasses
import types
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from fewbits.artifact.old_names import present_name
from fewbits.errors import FewbitsError
from fewbits.limits import SEQUENCE_ITEMS
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import Format, parse
from fewbits.numerics.packing import pack, packed_bytes, unpack
from fewbits.program.ops import RECORDS, ProgramNode
from fewbits.storage.container import RANK_LIMIT, stores
from fewbits.storage.refusal import Refusal, quoted, shortened

Place = tuple[str, ...]
"""Where a value stands: its layer (the `name` of an item, or a key in a mapping), then fields."""

_DTYPES = {"scale": np.dtype(np.float32), "zero_point": np.dtype(np.int32), "bias": np.dtype(np.int32)}
_FORMATS: tuple[type, ...] = get_args(Format)
_ELEMENTS_LIMIT = 2**40
_NAMESAKES_LIMIT = 16
_DEPTH_LIMIT = 32  # of the structure a model returns
_CONSTRUCTION = (FewbitsError, ArithmeticError, LookupError, AttributeError, TypeError, ValueError)
"""What a constructor may raise over values that its field types allow."""


class Writer:
    """Collects the tensors of a program. places: where each came from."""

    def __init__(self, reserved: Iterable[str] = ()):
        self.tensors: dict[str, np.ndarray] = {}
        self.places: dict[str, Place] = dict.fromkeys(reserved, ())

    def put(self, place: Place, array: np.ndarray) -> None:
        name = _tensor_name(place, self.places)
        self.places[name], self.tensors[name] = place, array


class Reader:
    """Hands out the tensors of a file, each once, in the order in which `Writer` took them."""

    def __init__(self, tensors: Mapping[str, np.ndarray], reserved: Iterable[str] = ()):
        self._tensors = tensors
        self.places: dict[str, Place] = dict.fromkeys(reserved, ())

    def take(self, place: Place) -> np.ndarray:
        name = _tensor_name(place, self.places)
        if name not in self._tensors:
            raise Refusal(f"has no tensor {quoted(name)}")
        self.places[name] = place
        return self._tensors[name]

    def finish(self) -> None:
        """Raises Refusal when a tensor belongs to nothing."""
        for name in self._tensors:
            if name not in self.places:
                raise Refusal(f"holds a tensor {quoted(name)} that belongs to nothing")


def _tensor_name(place: Place, taken: Mapping[str, Any]) -> str:
    base = name = ".".join([place[0], *(field for field in place[1:] if field not in ("codes", "encoding"))])
    count = 1
    while name in taken:  # layers `a` and `a.weight` may meet
        count += 1
        if count > _NAMESAKES_LIMIT:
            raise Refusal(f"has too many tensors called {quoted(base)}", "give the layers names of their own")
        name = f"{base}#{count}"
    return name


# ----------------------------------------------------------------------------------- value → JSON


def encode(value: Any, kind: Any, writer: Writer, place: Place = ()) -> Any:
    """JSON of a value declared as `kind`. Raises Refusal for a value of another type, naming the place."""
    if kind is Any:
        return _encode_structure(value, place, 0)
    if isinstance(value, _FORMATS) and _has_text(value):
        return str(value)
    members = _members(kind)
    if value is None and type(None) in members:
        return None
    members = [member for member in members if member is not type(None)]
    if dataclasses.is_dataclass(type(value)) and type(value) in members:
        table = _encode_fields(value, writer, place)
        return table if len(members) == 1 else {type(value).__name__: table}
    for member in members:
        origin, arguments = _origin(member), get_args(member)
        if origin is Literal and value in arguments:
            return value
        if origin is tuple and isinstance(value, tuple):
            if len(value) > SEQUENCE_ITEMS:
                raise Refusal(f"cannot hold {_spell(place)}, a list of more than {SEQUENCE_ITEMS} items",
                              "save parts of the model as programs of their own")
            kinds = _item_kinds(arguments, len(value))
            if kinds is not None:
                return [encode(item, kind, writer, (*place, str(i)))
                        for i, (item, kind) in enumerate(zip(value, kinds, strict=True))]
        if origin is Mapping and isinstance(value, Mapping):
            return {_text(key, place): encode(item, arguments[1], writer, (key,))
                    for key, item in value.items()}
        if origin is np.ndarray and isinstance(value, np.ndarray):
            return _encode_array(value, writer, place)
        if origin is bool and isinstance(value, bool | np.bool_):
            return bool(value)
        if origin is int and isinstance(value, int | np.integer) and not isinstance(value, bool):
            return int(value)
        if origin is float and isinstance(value, float) and np.isfinite(value):
            return float(value)
        if origin is str and isinstance(value, str):
            return value
    raise _not_stored(place, value)


def _encode_fields(value: Any, writer: Writer, place: Place) -> dict[str, Any]:
    place = _place_of(getattr(value, "name", None), place)
    table = {}
    for name, (kind, default) in _fields(type(value)).items():
        item = getattr(value, name)
        if _is_default(item, default):
            continue
        if isinstance(value, Quantized) and name == "codes":
            table[name] = _encode_codes(value, writer, (*place, name))
            continue
        if isinstance(value, Encoding) and name == "zero_point":
            item = _one_if_equal(item)
        table[name] = encode(item, kind, writer, (*place, name))
    return table


def _one_if_equal(array: np.ndarray) -> np.ndarray:
    """One element for many equal ones: Encoding's constructor spreads it over the scales again."""
    flat = array.reshape(-1)
    return flat[:1].reshape(()) if flat.size > 1 and (flat == flat[0]).all() else array


def _encode_codes(value: Quantized, writer: Writer, place: Place) -> Any:
    codes, format = value.codes, value.encoding.format
    if codes.size == 1:
        return codes.tolist()
    writer.put(place, pack(codes, format))
    return {"shape": list(codes.shape)}


def _encode_array(array: np.ndarray, writer: Writer, place: Place) -> Any:
    expected = _DTYPES.get(place[-1])
    if expected not in (None, array.dtype) or array.ndim > RANK_LIMIT or not stores(array.dtype):
        raise _not_stored(place, array)
    if array.size == 1 and array.dtype == np.int32:
        return array.tolist()
    if array.size == 1 and array.dtype == np.float32 and np.isfinite(array).all():
        number: Any = _shortest(np.float32(array.item()))
        for _ in range(array.ndim):
            number = [number]
        return number
    writer.put(place, array)
    return {"shape": list(array.shape)}


def _shortest(number: np.float32) -> float:
    """The float64 whose decimal is the shortest that gives the float32 back."""
    short = float(str(number))
    return short if np.float32(short) == number else float(number)


def _encode_structure(value: Any, place: Place, depth: int) -> Any:
    """What a model returns: a value's name, None, or a list, tuple or dict (keys str or int) of these."""
    if depth > _DEPTH_LIMIT:
        raise Refusal(f"cannot nest the model's outputs more than {_DEPTH_LIMIT} deep", "flatten them")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        items = [_encode_structure(item, place, depth + 1) for item in value]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        return {"dict": [[key, _encode_structure(item, place, depth + 1)] for key, item in value.items()]}
    raise _not_stored(place, value)


def _text(key: Any, place: Place) -> str:
    if not isinstance(key, str):
        raise _not_stored(place, key)
    return key


def _has_text(format: Any) -> bool:
    try:
        return parse(str(format)) == format
    except FewbitsError:  # a format without a name, such as a table
        return False


def _not_stored(place: Place, value: Any) -> Refusal:
    return Refusal(f"cannot hold {_spell(place)}, a {type(value).__name__} that its type does not allow",
                   "build the program with fewbits, or mend that field")


# ----------------------------------------------------------------------------------- JSON → value


def decode(data: Any, kind: Any, reader: Reader, place: Place = ()) -> Any:
    """The value declared as `kind`. Raises Refusal, naming the place, for what `encode` never makes."""
    if kind is Any:
        return _decode_structure(data, place, 0)
    members = _members(kind)
    if data is None and type(None) in members:
        return None
    members = [member for member in members if member is not type(None)]
    if isinstance(data, str) and any(member in _FORMATS for member in members):
        return _decode_format(data, members, place)
    classes: dict[str, type] = {member.__name__: member for member in members if _is_class(member)}
    if len(members) > 1 and isinstance(data, dict) and len(data) == 1 and not data.keys() <= {"shape"}:
        tag, inside = next(iter(data.items()))
        if kind is ProgramNode:
            tag, inside = present_name(tag, inside)
        if tag not in classes:
            raise Refusal(f"holds {quoted(tag)} at {_spell(place)}, which this fewbits does not know",
                          "upgrade fewbits, or save the program again")
        return _decode_fields(inside, classes[tag], reader, place)
    if classes and len(members) == 1:
        return _decode_fields(data, members[0], reader, place)
    for member in members:
        origin, arguments = _origin(member), get_args(member)
        if origin is Literal and any(type(data) is type(choice) and data == choice for choice in arguments):
            return data
        if origin is tuple and isinstance(data, list):
            if len(data) > SEQUENCE_ITEMS:
                raise Refusal(f"lists {len(data)} items at {_spell(place)}, and {SEQUENCE_ITEMS} is the most")
            if arguments == (int, ...) and all(type(item) is int and abs(item) < 2**63 for item in data):
                return tuple(data)
            kinds = _item_kinds(arguments, len(data))
            if kinds is not None:
                return tuple(decode(item, kind, reader, (*place, str(i)))
                             for i, (item, kind) in enumerate(zip(data, kinds, strict=True)))
        if origin is Mapping and isinstance(data, dict):
            return {key: decode(item, arguments[1], reader, (key,)) for key, item in data.items()}
        if origin is np.ndarray and type(data) in (int, float, list, dict):
            return _decode_array(data, reader, place)
        if origin is int and type(data) is int and abs(data) < 2**63:
            return data
        if origin in (str, bool, float) and type(data) is origin and data not in (np.inf, -np.inf):
            return data
    raise _unexpected(place, data)


def _decode_fields(data: Any, kind: type, reader: Reader, place: Place) -> Any:
    if not isinstance(data, dict):
        raise _unexpected(place, data)
    fields = _fields(kind)
    place = _place_of(data.get("name"), place)
    for key in data:
        if key not in fields:
            raise Refusal(f"says {quoted(key)} of {_spell(place)}, which this fewbits does not know",
                          "upgrade fewbits, or save the program again")
    values = {}
    for name, (type_, default) in fields.items():
        if name in data:
            if kind is Quantized and name == "codes":
                continue  # read behind the encoding, which says how they are packed
            values[name] = decode(data[name], type_, reader, (*place, name))
        elif default is dataclasses.MISSING:
            raise Refusal(f"does not say {name!r} of {_spell(place)}")
    if kind is Quantized:
        values["codes"] = _decode_codes(data["codes"], values["encoding"].format, reader, (*place, "codes"))
    try:
        return kind(**values)
    except _CONSTRUCTION as error:
        told = shortened(str(error)) if isinstance(error, FewbitsError) else "its parts do not fit together"
        raise Refusal(f"holds at {_spell(place)} what no {kind.__name__} can be ({told})") from None


def _decode_format(text: str, members: list[Any], place: Place) -> Any:
    try:
        format = parse(text)
    except (FewbitsError, ValueError):
        raise Refusal(f"names a format {quoted(text)} at {_spell(place)}, which this fewbits does not know",
                      "upgrade fewbits, or save the program again") from None
    if type(format) not in members or str(format) != text:
        raise _unexpected(place, text)
    return format


def _decode_codes(data: Any, format: Any, reader: Reader, place: Place) -> np.ndarray:
    if not isinstance(data, dict):
        number, rank = _only_number(data, place)
        if type(number) is not int or not format.low <= number <= format.high:
            raise _unexpected(place, data)
        return np.full((1,) * rank, number, format.dtype)
    shape, packed = _shape(data, place), reader.take(place)
    expected = packed_bytes(prod(shape), format)
    if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != expected:
        raise Refusal(f"has {_spell(place)} in {packed.nbytes} bytes of {packed.dtype}, "
                      f"but its shape and format take {expected} of uint8")
    return unpack(packed, format, shape)


def _decode_array(data: Any, reader: Reader, place: Place) -> np.ndarray:
    if isinstance(data, dict):
        shape, stored = _shape(data, place), reader.take(place)
        if stored.shape != shape:
            raise Refusal(f"has {_spell(place)} in shape {list(stored.shape)}, not {list(shape)}")
        array = stored.astype(stored.dtype.newbyteorder("="))
    else:
        number, rank = _only_number(data, place)
        dtype = np.float32 if type(number) is float else np.int32
        try:
            with np.errstate(over="raise"):  # float32's largest number rounds down from its shortest decimal
                array = np.full((1,) * rank, dtype(number), dtype)
        except (OverflowError, FloatingPointError):
            raise _unexpected(place, data) from None
    if _DTYPES.get(place[-1]) not in (None, array.dtype):
        raise Refusal(f"has {_spell(place)} in {array.dtype}, not {_DTYPES[place[-1]]}")
    array.flags.writeable = False
    return array


def _only_number(data: Any, place: Place) -> tuple[Any, int]:
    """The number in nested lists of one element each, and how many lists."""
    inner, rank = data, 0
    while isinstance(inner, list) and len(inner) == 1 and rank < RANK_LIMIT:
        inner, rank = inner[0], rank + 1
    if type(inner) not in (int, float):
        raise _unexpected(place, data)
    return inner, rank


def _shape(data: dict[str, Any], place: Place) -> tuple[int, ...]:
    """A shape that NumPy can have: its tensor's size is checked against it before anything is made."""
    shape = data.get("shape")
    if (len(data) != 1 or not isinstance(shape, list) or len(shape) > RANK_LIMIT
            or not all(type(size) is int and 0 <= size <= _ELEMENTS_LIMIT for size in shape)
            or prod(max(size, 1) for size in shape) > _ELEMENTS_LIMIT):
        raise _unexpected(place, data)
    return tuple(shape)


def _decode_structure(data: Any, place: Place, depth: int) -> Any:
    if data is None or isinstance(data, str):
        return data
    if depth > _DEPTH_LIMIT or not isinstance(data, dict) or len(data) != 1:
        raise _unexpected(place, data)
    tag, items = next(iter(data.items()))
    if not isinstance(items, list) or tag not in ("list", "tuple", "dict"):
        raise _unexpected(place, data)
    if tag == "dict":
        if not all(type(pair) is list and len(pair) == 2 and type(pair[0]) in (str, int) for pair in items):
            raise _unexpected(place, data)
        table = {key: _decode_structure(item, place, depth + 1) for key, item in items}
        if len(table) != len(items):
            raise _unexpected(place, data)
        return table
    parts = [_decode_structure(item, place, depth + 1) for item in items]
    return parts if tag == "list" else tuple(parts)


def _unexpected(place: Place, data: Any) -> Refusal:
    shown = type(data).__name__ if isinstance(data, dict | list) else quoted(data)
    return Refusal(f"has {shown} at {_spell(place)}, where that cannot be")


# ------------------------------------------------------------------------------ types and places


@cache
def _fields(kind: type) -> Mapping[str, tuple[Any, Any]]:
    """Type and default of each field, in order."""
    hints = get_type_hints(kind)
    return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(kind)}


def _members(kind: Any) -> list[Any]:
    """The alternatives of a union, or the type itself."""
    if kind is ProgramNode:
        return list(RECORDS)
    return list(get_args(kind)) if get_origin(kind) in (Union, types.UnionType) else [kind]


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _origin(kind: Any) -> Any:
    """tuple for tuple[int, ...], collections.abc.Mapping for Mapping[str, int], int for int."""
    return get_origin(kind) or kind


def _item_kinds(arguments: tuple[Any, ...], count: int) -> list[Any] | None:
    """Types of a tuple's items; None when it cannot have that many."""
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [arguments[0]] * count
    return list(arguments) if len(arguments) == count else None


def _is_default(item: Any, default: Any) -> bool:
    return type(item) is type(default) and not isinstance(item, np.ndarray) and bool(item == default)


def _place_of(name: Any, place: Place) -> Place:
    """A named item of a tuple, such as a node, is a layer: its name is its place."""
    return (name,) if isinstance(name, str) and place and place[-1].isdigit() else place


def _spell(place: Place) -> str:
    return quoted(".".join(place)) if place else "the top"
