"""AIMET's encodings files, schemas 0.6.1, 1.0.0 and 2.0.0: written from a simulation, and read into one.

AIMET counts codes from 0 and adds an offset: x = scale · (q + offset), q from 0 to 2^b − 1, so that its offset is the
lowest code less our zero point. Schema 2.0.0 has ONNX's names instead: a type, `y_scale` and `y_zero_point`.

Source: AIMET 2.42, its files and its documentation of them.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

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
    """One tensor's, as the file has it: bits of a code; scale; offset, counted from 0 as the lowest code; of_type:
    whether that is the lowest code of the type (schema 2.0.0), also where a narrow format leaves it out."""

    bits: int
    scale: tuple[float, ...]
    offset: tuple[int, ...]
    of_type: bool = False


@options_checked
def save_encodings(simulation: Simulation, path: str | Path, version: Version = "1.0.0", *,
                   layout: Layout = "tensors", names: Mapping[str, str] | None = None) -> None:
    """Writes the encodings of a calibrated simulation's inputs, activations and weights.

    layout: `tensors`, keyed by tensor as for a network in ONNX, or `modules`, keyed by module, `input` or `output`, and
    number, as `QuantizationSimModel.load_encodings` of AIMET's torch package takes it (schema 0.6.1 only).
    names: what the file calls our tensors, where it is not what `sim.encodings()` calls them.
    Raises EncodingError for a version that is none, and for formats and blocks that AIMET has not; FileError.
    """
    if version not in get_args(Version):
        raise EncodingError(f"no AIMET schema is called {version!r}: choose one of {', '.join(get_args(Version))}")
    if layout not in get_args(Layout) or (layout == "modules" and version != "0.6.1"):
        raise EncodingError(f"layout {layout!r} of schema {version} is none: choose tensors, or modules with 0.6.1")
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
    elif version == "1.0.0":
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
    encodings file of a schema that is known, naming unknown fields."""
    content = _json(path)
    version = str(content.get("version", "0.6.1"))
    if version not in _TOP:
        raise FileError(f"{path} has schema {quoted(version)}, and this fewbits reads {', '.join(_TOP)}")
    _known(path, "the file", content, _TOP[version])
    if not any(key.endswith("encodings") for key in content):
        raise FileError(f"{path} is no encodings file of schema {version}: it holds no encodings")
    try:
        if version == "2.0.0":
            return {_text(each["name"]): _from_onnx(path, each) for each in _list(content["encodings"])}
        parts = [content.get(key, {}) for key in ("activation_encodings", "param_encodings")]
        if version == "1.0.0" and not any(isinstance(part, dict) for part in parts):
            return {_text(each["name"]): _from_lists(path, each) for part in parts for each in _list(part)}
        # AIMET writes 1.0.0 into its files by module, which have the rows of 0.6.1.
        return {name: _from_rows(path, name, rows) for part in parts for name, rows in _rows(part)}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        told = f"{type(error).__name__} at {quoted(str(error))}"
        raise FileError(f"{path} is no encodings file of schema {version}: {told}") from None


# ------------------------------------------------------------------------------- writing


def _check(quantizer: FakeQuantize) -> None:
    encoding = quantizer.encoding
    if not isinstance(encoding.format, Int) or encoding.block.sizes not in ((), (1,)):
        raise EncodingError(f"{quantizer.site!r} is {encoding}, and AIMET's schemas hold integers with one scale, or "
                            "one per channel")


def _offsets(encoding: Encoding) -> list[int]:
    return (encoding.format.low - encoding.zero_point.astype(np.int64).reshape(-1)).tolist()


def _scales(encoding: Encoding) -> list[float]:
    return encoding.scale.astype(np.float64).reshape(-1).tolist()


def _symmetric(encoding: Encoding) -> bool:
    return isinstance(encoding.format, Int) and encoding.format.signed and not encoding.zero_point.any()


def _as_rows(quantizer: FakeQuantize) -> list[dict[str, Any]]:
    encoding = quantizer.encoding
    levels = encoding.format.high - encoding.format.low
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
    for quantizer in activations:
        entry = _as_rows(quantizer)[0]
        if quantizer.kind == "input":
            for node in nodes.values():
                if quantizer.site in node.refs and node.module:
                    number = str(node.refs.index(quantizer.site))
                    keyed.setdefault(node.module, {}).setdefault("input", {})[number] = entry
        elif module := nodes[quantizer.site].module:
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


def _known(path: str | Path, where: str, entry: Mapping[str, Any], fields: set[str]) -> None:
    unknown = sorted(set(entry) - fields)
    if unknown:
        raise FileError(f"{path}: {where} holds fields that are not known: {', '.join(map(quoted, unknown))}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} in place of a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of a name")
    return value


def _rows(part: Any) -> Iterable[tuple[str, list[Any]]]:
    """(name, rows) of schema 0.6.1: by tensor, or by module, side and number."""
    for name, value in part.items():
        if isinstance(value, list):
            yield name, value
            continue
        for side, numbered in value.items():
            for number, row in numbered.items():
                yield f"{name}:{side}:{number}", [row]


def _integer(path: str | Path, name: str, bits: Any, kind: Any) -> int:
    if str(kind).lower() != "int" or not isinstance(bits, int):
        raise FileError(f"{path}: {quoted(name)} has {quoted(kind)} of {quoted(bits)} bits, and only integers are read")
    return bits


def _from_rows(path: str | Path, name: str, rows: Sequence[Any]) -> AimetEncoding:
    for row in rows:
        _known(path, repr(name), row, _ENTRY["0.6.1"])
    bits = {_integer(path, name, row["bitwidth"], row["dtype"]) for row in rows}
    if len(bits) != 1:
        raise FileError(f"{path}: {quoted(name)} has channels of {sorted(bits)} bits")
    return _encoding(path, name, bits.pop(), [row["scale"] for row in rows], [row["offset"] for row in rows])


def _from_lists(path: str | Path, entry: Any) -> AimetEncoding:
    name = entry["name"]
    _known(path, repr(name), entry, _ENTRY["1.0.0"])
    if entry["enc_type"] not in ("PER_TENSOR", "PER_CHANNEL"):
        raise FileError(f"{path}: {quoted(name)} is {quoted(entry['enc_type'])}, and PER_TENSOR and PER_CHANNEL are "
                        "read")
    return _encoding(path, name, _integer(path, name, entry["bw"], entry["dtype"]), _list(entry["scale"]),
                     _list(entry["offset"]))


def _from_onnx(path: str | Path, entry: Any) -> AimetEncoding:
    name = entry["name"]
    _known(path, repr(name), entry, _ENTRY["2.0.0"])
    kind = _TYPE.fullmatch(str(entry["output_dtype"]))
    if kind is None:
        raise FileError(f"{path}: {quoted(name)} is {quoted(entry['output_dtype'])}, and only integers are read")
    scales = entry["y_scale"] if isinstance(entry["y_scale"], list) else [entry["y_scale"]]
    zeros = entry.get("y_zero_point", 0)
    zeros = zeros if isinstance(zeros, list) else [zeros] * len(scales)
    if entry.get("axis", 0) != 0:
        raise FileError(f"{path}: {quoted(name)} has a scale for each entry of axis {quoted(entry['axis'])}, and axis "
                        "0 is read")
    bits = int(kind[2])
    lowest = 0 if kind[1] else -(2 ** (bits - 1))
    return replace(_encoding(path, name, bits, scales, [lowest - zero for zero in zeros]), of_type=True)


def _encoding(path: str | Path, name: str, bits: int, scales: Sequence[Any], offsets: Sequence[Any]) -> AimetEncoding:
    scale = tuple(float(each) for each in scales)
    if len(scale) != len(offsets) or not scale or not all(0 < each < float("inf") for each in scale):
        raise FileError(f"{path}: {quoted(name)} has {len(scale)} scales and {len(offsets)} offsets; scales are "
                        "positive and as many as offsets")
    if any(int(each) != each for each in offsets):
        raise FileError(f"{path}: {quoted(name)} has an offset that is no whole number")
    return AimetEncoding(bits, scale, tuple(int(each) for each in offsets))


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
    lowest = format.low - int(format.narrow and found.of_type)
    if any(abs(offset) > 2**32 for offset in found.offset):
        return [f"{name!r} has an offset that is no code of {format}"]
    zero = lowest - np.array(found.offset, np.int64).reshape(shape)
    if (zero < format.low).any() or (zero > format.high).any():
        return [f"{name!r} has an offset that is no code of {format}"]
    if quantizer.spec.symmetric and zero.any():
        return [f"{name!r} has a zero point, and the plan wants it symmetric"]
    quantizer.encoding = Encoding(format, np.array(found.scale, np.float32).reshape(shape), zero, quantizer.spec.block)
    return []
