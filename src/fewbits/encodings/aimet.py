"""AIMET's encodings files, schemas 0.6.1, 1.0.0 and 2.0.0: written from a simulation, and read into one.

AIMET counts codes from 0 and adds an offset: x = scale · (q + offset), q from 0 to 2^b − 1, so that its offset is the
lowest code less our zero point. Schema 2.0.0 has ONNX's names instead: a type, `y_scale` and `y_zero_point`.

Source: AIMET 2.42, its files and its documentation of them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from fewbits.errors import EncodingError, FileError
from fewbits.files import read_whole, write_whole
from fewbits.limits import TEXT_BYTES
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.formats import Int
from fewbits.options import options_checked
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.simulation import Simulation
from fewbits.storage.container import from_json
from fewbits.storage.refusal import Refusal, quoted

Version = Literal["0.6.1", "1.0.0", "2.0.0"]
Layout = Literal["tensors", "modules"]

_TOP = {
    "0.6.1": {"version", "producer", "activation_encodings", "param_encodings", "excluded_layers", "quantizer_args"},
    "1.0.0": {"version", "producer", "activation_encodings", "param_encodings", "excluded_layers", "quantizer_args"},
    "2.0.0": {"version", "producer", "encodings"},
}
_ENTRY = {
    "0.6.1": {"bitwidth", "dtype", "is_symmetric", "min", "max", "scale", "offset"},
    "1.0.0": {"name", "enc_type", "dtype", "bw", "is_sym", "scale", "offset"},
    "2.0.0": {"name", "output_dtype", "y_scale", "y_zero_point", "axis"},
}
_TYPE = re.compile(r"(u?)int([0-9]{1,3})")
_ONNX_NAME = re.compile(r"/(?P<module>.+)/[^/]+_output_\d+")


@dataclass(frozen=True)
class AimetEncoding:
    """One tensor's, as the file has it: bits of a code; scale; offset, from 0 as the lowest code of the type, also
    where a format, or AIMET's strict symmetry, leaves that code out."""

    bits: int
    scale: tuple[float, ...]
    offset: tuple[int, ...]


@options_checked
def save_encodings(simulation: Simulation, path: str | Path, version: Version = "1.0.0", *,
                   layout: Layout = "tensors", names: Mapping[str, str] | None = None) -> None:
    """Writes the encodings of a calibrated simulation's inputs, activations and weights.

    layout: `tensors`, keyed by tensor as for a network in ONNX, as `load_encodings_to_sim` of AIMET's ONNX package
    takes it; or `modules`, keyed by module, `input` or `output`, and number, as `QuantizationSimModel.load_encodings`
    of its torch package takes it and its `sim.export` writes it (0.6.1 and 1.0.0, whose rows are the same there).
    names: what the file calls our tensors, where it is not what `sim.encodings()` calls them.
    Raises EncodingError for a version that is none, and for formats and blocks that AIMET has not; FileError.
    """
    if layout == "modules" and version == "2.0.0":
        raise EncodingError("AIMET has no layout by modules in schema 2.0.0: choose layout='tensors', or schema 1.0.0")
    activations, parameters = [], []
    for quantizer in simulation.quantizers():
        _check(quantizer)
        (parameters if quantizer.kind in ("weight", "constant") else activations).append(quantizer)
    called = dict(names or {})

    def name(quantizer: FakeQuantize) -> str:
        return called.get(quantizer.site, quantizer.site)

    content: dict[str, Any] = {"version": version, "producer": {"package": "fewbits"}}
    if version == "2.0.0":
        content["encodings"] = [{"name": name(each), **_as_onnx(each)} for each in (*activations, *parameters)]
    elif version == "1.0.0" and layout == "tensors":
        content["activation_encodings"] = [{"name": name(each), **_as_lists(each)} for each in activations]
        content["param_encodings"] = [{"name": name(each), **_as_lists(each)} for each in parameters]
        content |= {"excluded_layers": [], "quantizer_args": {}}
    else:
        keyed = ({name(each): _as_rows(each) for each in activations} if layout == "tensors"
                 else _by_module(simulation, activations))
        content["activation_encodings"] = keyed
        content["param_encodings"] = {name(each): _as_rows(each) for each in parameters}
        content |= {"excluded_layers": [], "quantizer_args": {}}
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def load_encodings(simulation: Simulation, path: str | Path, *, names: Mapping[str, str] | None = None) -> Simulation:
    """A copy of the simulation, simulating, with the encodings of an AIMET file in place of its own.

    The file's tensors are found by our names, by the paths of their modules, or by what `names` says (ours by the
    file's). Every input, activation and weight of the plan must be in the file; what the file says of tensors that pass
    codes on must be what it says of where they come from; biases follow their products.
    Raises FileError for what is no such file or holds unknown fields, EncodingError, listing them, for names that fit
    nothing, tensors that are missing, and bits or shapes other than the plan's.
    """
    found, called, changed = read_encodings(path), dict(names or {}), simulation.copy()
    modules = _modules(changed)
    problems, given = [], {}
    for name, encoding in found.items():
        target = called.get(name, _target(changed, modules, name))
        kind = changed.plan.sites[target].kind if target is not None and target in changed.plan.sites else None
        if kind in ("bias", "accumulator"):
            if kind == "accumulator":  # what a bias is follows from its products
                problems.append(f"{name!r} is an output that the plan leaves in float (`outputs: quantized` has codes)")
        elif target is not None and changed.plan.grid(target) in changed.plan.sites:
            grid = changed.plan.grid(target)
            if given.setdefault(grid, (name, encoding))[1] != encoding:
                problems.append(f"{name!r} has another encoding than {given[grid][0]!r}, whose codes it passes on")
        else:
            problems.append(f"{quoted(name)} is no tensor of this plan")
    problems += [f"{quantizer.site!r} is not in the file" for quantizer in changed.quantizers()
                 if quantizer.site not in given]
    for quantizer in changed.quantizers():
        if quantizer.site in given:
            problems += _put(quantizer, *given[quantizer.site])
    if problems:
        raise EncodingError(f"{path} does not fit the simulation: {'; '.join(problems)}. Give `names` for tensors that "
                            "are called otherwise, and a recipe with the file's bits")
    changed.set_mode("simulate")
    return changed


def read_encodings(path: str | Path) -> dict[str, AimetEncoding]:
    """Encodings by the file's names; in the layout by modules `module:input:0`. Raises FileError for what is no
    encodings file of a schema that is known, naming the entry and what is wrong with it."""
    content = _json(path)
    version = content.get("version", "0.6.1")
    if not isinstance(version, str) or version not in _TOP:
        raise FileError(f"{path} has schema {quoted(version)}, and this fewbits reads {', '.join(_TOP)}")
    try:
        _only(content, "the file", _TOP[version])
        if not any(key.endswith("encodings") for key in content):
            raise Refusal(f"is no encodings file of schema {version}: it holds no encodings")
        parts = [content[key] for key in ("encodings", "activation_encodings", "param_encodings") if key in content]
        found: dict[str, AimetEncoding] = {}
        for part in parts:
            # AIMET writes 1.0.0 into its files by module, too, which have the rows of 0.6.1.
            if version == "0.6.1" or (version == "1.0.0" and isinstance(part, dict)):
                read = (_from_rows(name, rows) for name, rows in _rows(part))
            else:
                one = _from_onnx if version == "2.0.0" else _from_lists
                read = (one(each) for each in _of(list, part, "its encodings"))
            for name, encoding in read:
                if name in found:
                    raise Refusal(f"holds two encodings of {quoted(name)}")
                found[name] = encoding
    except Refusal as refusal:
        raise FileError(f"{path} {refusal.reason}: give an encodings file as AIMET or fb.save_encodings writes it"
                        ) from None
    return found


# ------------------------------------------------------------------------------- writing


def _check(quantizer: FakeQuantize) -> None:
    encoding = quantizer.encoding
    if not isinstance(encoding.format, Int) or encoding.block.sizes not in ((), (1,)):
        raise EncodingError(f"{quantizer.site!r} is {encoding}, and AIMET's schemas hold integers with one scale, or "
                            "one per channel")


def _lowest(format: Int) -> int:
    """The lowest code of the type, which a narrow format leaves out and AIMET counts from all the same."""
    return format.low - int(format.narrow)


def _offsets(encoding: Encoding) -> list[int]:
    assert isinstance(encoding.format, Int), "checked before"
    return (_lowest(encoding.format) - encoding.zero_point.astype(np.int64).reshape(-1)).tolist()


def _scales(encoding: Encoding) -> list[float]:
    return encoding.scale.astype(np.float64).reshape(-1).tolist()


def _symmetric(encoding: Encoding) -> bool:
    return isinstance(encoding.format, Int) and encoding.format.signed and not encoding.zero_point.any()


def _as_rows(quantizer: FakeQuantize) -> list[dict[str, Any]]:
    encoding = quantizer.encoding
    levels = 2**encoding.format.bits - 1
    return [{"bitwidth": encoding.format.bits, "dtype": "int", "is_symmetric": str(_symmetric(encoding)),
             "min": scale * offset, "max": scale * (offset + levels), "scale": scale, "offset": offset}
            for scale, offset in zip(_scales(encoding), _offsets(encoding), strict=True)]


def _as_lists(quantizer: FakeQuantize) -> dict[str, Any]:
    encoding = quantizer.encoding
    return {"enc_type": "PER_CHANNEL" if encoding.scale.ndim else "PER_TENSOR", "dtype": "INT",
            "bw": encoding.format.bits, "is_sym": _symmetric(encoding), "scale": _scales(encoding),
            "offset": _offsets(encoding)}


def _as_onnx(quantizer: FakeQuantize) -> dict[str, Any]:
    encoding, scales = quantizer.encoding, _scales(quantizer.encoding)
    assert isinstance(encoding.format, Int), "checked before"
    zeros = encoding.zero_point.reshape(-1).tolist()
    many = bool(encoding.scale.ndim)
    entry: dict[str, Any] = {"output_dtype": f"{'' if encoding.format.signed else 'u'}int{encoding.format.bits}",
                             "y_scale": scales if many else scales[0]}
    if any(zeros):
        entry["y_zero_point"] = zeros if many else zeros[0]
    return entry | ({"axis": 0} if many else {})


def _by_module(simulation: Simulation, activations: Iterable[FakeQuantize]) -> dict[str, Any]:
    """Activations by the module that makes them; inputs by the modules that take them."""
    nodes = {node.name: node for node in simulation.model.graph.nodes}
    keyed: dict[str, dict[str, dict[str, Any]]] = {}
    made: dict[str, str] = {}
    for quantizer in activations:
        entry, site = _as_rows(quantizer)[0], quantizer.site
        if quantizer.kind == "input":
            for node in nodes.values():
                if site in node.refs and node.module:
                    number = str(node.refs.index(site))
                    keyed.setdefault(node.module, {}).setdefault("input", {})[number] = entry
            continue
        module = nodes[site].module
        if not module or module in made:
            why = f"comes from module {module!r} as {made[module]!r} does" if module else "comes from no module"
            raise EncodingError(f"{site!r} {why}, and a file by modules has one output for each: write it with "
                                "layout='tensors'")
        made[module] = site
        keyed.setdefault(module, {}).setdefault("output", {})["0"] = entry
    return keyed


# ------------------------------------------------------------------------------- reading


def _json(path: str | Path) -> dict[str, Any]:
    try:
        content = from_json(read_whole(path, TEXT_BYTES, "an encodings file"), "text", "utf-8")
    except Refusal as refusal:
        raise FileError(f"{path} {refusal.reason}: give an encodings file, which is JSON") from None
    if not isinstance(content, dict):
        raise FileError(f"{path} is no encodings file: it holds no JSON object")
    return content


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false",
                           int: "a whole number", float: "a number", type(None): "null"}
_Kind = TypeVar("_Kind")


def _of(kind: type[_Kind], value: Any, what: str) -> _Kind:
    """The value, where it is of this kind; whole numbers are numbers, and what is true or false is neither."""
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise Refusal(f"has {_KINDS[type(value)]} for {what}, which is {_KINDS[kind]}")
    return cast(_Kind, value)


def _only(entry: Mapping[str, Any], where: str, fields: set[str]) -> None:
    unknown = sorted(set(entry) - fields)
    if unknown:
        raise Refusal(f"holds fields that are not known in {where}: {', '.join(map(quoted, unknown))}")


def _field(entry: Mapping[str, Any], name: str, kind: type[_Kind], where: str) -> _Kind:
    if name not in entry:
        raise Refusal(f"has no {name!r} in {where}")
    return _of(kind, entry[name], f"{name!r} in {where}")


def _named(entry: Any, fields: set[str]) -> tuple[str, str, dict[str, Any]]:
    """Name, what sentences call it, and an entry whose fields are known."""
    entry = _of(dict, entry, "one of its encodings")
    name = _field(entry, "name", str, "one of its encodings")
    _only(entry, quoted(name), fields)
    return name, quoted(name), entry


def _rows(part: Any) -> Iterable[tuple[str, list[Any]]]:
    """(name, rows) of schema 0.6.1: by tensor, or by module, side and number."""
    for name, value in _of(dict, part, "its encodings").items():
        if isinstance(value, list):
            yield name, value
            continue
        for side, numbered in _of(dict, value, f"the encodings of {quoted(name)}").items():
            for number, row in _of(dict, numbered, f"{quoted(side)} of {quoted(name)}").items():
                yield f"{name}:{side}:{number}", [row]


def _bits(name: str, bits: Any, kind: Any) -> int:
    if str(kind).lower() != "int":
        raise Refusal(f"has {quoted(kind)} for {name}, and only integers are read")
    bits = _of(int, bits, f"the bits of {name}")
    if not 1 <= bits <= 32:
        raise Refusal(f"has {bits} bits for {name}, and 1 to 32 are read")
    return bits


def _from_rows(name: str, rows: Sequence[Any]) -> tuple[str, AimetEncoding]:
    where = quoted(name)
    for row in rows:
        _only(_of(dict, row, f"a channel of {where}"), where, _ENTRY["0.6.1"])
    bits = {_bits(where, _field(row, "bitwidth", int, where), _field(row, "dtype", str, where)) for row in rows}
    if len(bits) != 1:
        raise Refusal(f"has channels of {sorted(bits) or 'no'} bits for {where}")
    scales, offsets = ([_field(row, key, float, where) for row in rows] for key in ("scale", "offset"))
    symmetric = all(str(row.get("is_symmetric")).lower() == "true" for row in rows)
    return name, _encoding(where, bits.pop(), scales, offsets, symmetric)


def _from_lists(entry: Any) -> tuple[str, AimetEncoding]:
    name, where, entry = _named(entry, _ENTRY["1.0.0"])
    if (kind := _field(entry, "enc_type", str, where)) not in ("PER_TENSOR", "PER_CHANNEL"):
        raise Refusal(f"has {quoted(kind)} for {where}, and PER_TENSOR and PER_CHANNEL are read")
    bits = _bits(where, _field(entry, "bw", int, where), _field(entry, "dtype", str, where))
    scales, offsets = (_field(entry, key, list, where) for key in ("scale", "offset"))
    return name, _encoding(where, bits, scales, offsets, entry.get("is_sym") is True)


def _from_onnx(entry: Any) -> tuple[str, AimetEncoding]:
    name, where, entry = _named(entry, _ENTRY["2.0.0"])
    kind = _TYPE.fullmatch(_field(entry, "output_dtype", str, where))
    if kind is None:
        raise Refusal(f"has {quoted(entry['output_dtype'])} for {where}, and only integers are read")
    bits = _bits(where, int(kind[2]), "int")
    scales = entry["y_scale"] if isinstance(entry.get("y_scale"), list) else [_field(entry, "y_scale", float, where)]
    zeros = entry.get("y_zero_point", 0)
    zeros = zeros if isinstance(zeros, list) else [zeros] * len(scales)
    if entry.get("axis") not in (None, 0):
        raise Refusal(f"has a scale for each entry of axis {quoted(entry['axis'])} for {where}, and axis 0 is read")
    lowest = 0 if kind[1] else -(2 ** (bits - 1))
    zeros = [_of(float, zero, f"the zero point of {where}") for zero in zeros]
    return name, _encoding(where, bits, scales, [lowest - zero for zero in zeros], False)


def _encoding(where: str, bits: int, scales: Sequence[Any], offsets: Sequence[Any], symmetric: bool) -> AimetEncoding:
    scale = tuple(float(_of(float, each, f"a scale of {where}")) for each in scales)
    if len(scale) != len(offsets) or not scale or not all(0 < each < float("inf") for each in scale):
        raise Refusal(f"has {len(scale)} scales and {len(offsets)} offsets for {where}, and scales are positive and as "
                      "many as offsets")
    if any(_of(float, each, f"an offset of {where}") % 1 != 0 for each in offsets):
        raise Refusal(f"has an offset for {where} that is no whole number")
    lowest = -(2 ** (bits - 1))
    strict = symmetric and bits > 1  # AIMET's strict symmetry counts from the code after the lowest
    return AimetEncoding(bits, scale, tuple(lowest if strict and each == lowest + 1 else int(each) for each in offsets))


def _modules(simulation: Simulation) -> dict[str, str]:
    """Names of values by the path of the module that makes them, the last where one makes several."""
    return {node.module: node.name for node in simulation.model.graph.nodes if node.module}


def _target(simulation: Simulation, modules: Mapping[str, str], name: str) -> str | None:
    """Our name of a tensor of the file, None where there is none."""
    if name in simulation.plan.sites or name in simulation.plan.steps:
        return name
    if match := _ONNX_NAME.fullmatch(name):
        return modules.get(match["module"].replace("/", "."))
    module, _, rest = name.rpartition(":")
    module, _, side = module.rpartition(":")
    if side == "output" and rest == "0":
        return modules.get(module)
    if side == "input" and rest.isdigit():
        reads = [node for node in simulation.model.graph.nodes if node.module == module]
        taken = reads[0].refs if reads else ()
        return taken[int(rest)] if int(rest) < len(taken) else None
    return None


def _put(quantizer: FakeQuantize, name: str, found: AimetEncoding) -> list[str]:
    """Gives a quantizer the file's encoding; returns what does not fit."""
    format, shape = quantizer.spec.format, tuple(quantizer.scale.shape)
    if not isinstance(format, Int) or format.bits != found.bits:
        return [f"{name!r} has {found.bits} bits, and the plan {format}"]
    if int(np.prod(shape, dtype=np.int64)) != len(found.scale):
        return [f"{name!r} has {len(found.scale)} scales, and the plan {int(np.prod(shape, dtype=np.int64))}"]
    if any(abs(offset) > 2**32 for offset in found.offset):
        return [f"{name!r} has an offset that is no code of {format}"]
    zero = _lowest(format) - np.array(found.offset, np.int64).reshape(shape)
    if (zero < format.low).any() or (zero > format.high).any():
        return [f"{name!r} has an offset that is no code of {format}"]
    if quantizer.spec.symmetric and zero.any():
        return [f"{name!r} has a zero point, and the plan wants it symmetric"]
    quantizer.encoding = Encoding(format, np.array(found.scale, np.float32).reshape(shape), zero, quantizer.spec.block)
    return []
