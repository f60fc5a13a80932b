"""What an exported ONNX file says of itself, in its metadata."""

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from fewbits.engines.exactness import Exactness
from fewbits.errors import FileError
from fewbits.files import read_whole
from fewbits.limits import ONNX_BYTES
from fewbits.program.program import Program
from fewbits.writers.onnx.program import OnnxForm

_PREFIX = "fewbits."


def described(program: Program, form: OnnxForm, written: Exactness) -> dict[str, str]:
    """What is written of a program in a form: its profile, and where the file's codes are the program's."""
    at = "every optimisation level" if form == "integer" else "the default optimisation level"
    told = {"profile": program.profile.name, "exact_on": written.where, "exact_at": f"{at} of onnxruntime"}
    if program.has_islands:
        told["float"] = "what the recipe left in float32 may differ in its last bits between engines"
    return {f"{_PREFIX}{name}": value for name, value in told.items()}


def description(path: str | Path) -> Mapping[str, str]:
    """What `described` wrote into a file, by name: `profile`, `exact_on`, `exact_at` and, where there is any, `float`.

    Raises FileError for what is no ONNX file, or none that fewbits exported.
    """
    try:
        model = onnx.load_from_string(read_whole(path, ONNX_BYTES, "an ONNX file"))
    except DecodeError:
        raise FileError(f"{path} is no ONNX file, or a damaged one: export it again") from None
    texts = [(item.key, item.value) for item in model.metadata_props
             if isinstance(item.key, str) and isinstance(item.value, str)]  # protobuf gives bytes for what is no UTF-8
    told = {key.removeprefix(_PREFIX): value for key, value in texts
            if key.startswith(_PREFIX) and (key + value).isprintable()}
    if not told:
        raise FileError(f"{path} was not exported by fewbits, and says nothing of itself: give a file that was, or a "
                        ".fewbits file")
    return told
