"""OpenVINO sessions over model bytes, on the CPU: an optional extra, and an engine that promises no equal codes."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from fewbits.errors import UnsupportedError
from fewbits.options import options_checked

Setting = Literal["default", "float32", "float32, fixed batch"]
"""What is left to OpenVINO: everything, as it runs by default; float32 for what is not in integers (its default is
bfloat16 where the processor has it); and besides that a graph made anew for each batch size, with no axis left open
(docs/openvino.md says why)."""


class OpenVinoSession:
    """One ONNX model read by OpenVINO.

    threads: of one inference. Raises UnsupportedError when OpenVINO is not installed, or has no form for an operator of
    the model, as it has none for most integer forms: export `qdq`.
    """

    @options_checked
    def __init__(self, model: bytes, setting: Setting = "float32, fixed batch", threads: int = 1):
        openvino = _openvino()
        self._core, self._setting = openvino.Core(), setting
        self._options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if setting != "default":
            self._options["INFERENCE_PRECISION_HINT"] = "f32"
        self._bytes, self._compiled = model, {}
        read = self._read()
        self.outputs = [output.get_any_name() for output in read.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name."""
        result = self._for(inputs)(dict(inputs))
        return {name: np.array(result[name]) for name in self.outputs}

    def _for(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """The compiled model for inputs of these shapes."""
        fixed = self._setting == "float32, fixed batch"
        shapes = tuple((name, array.shape) for name, array in inputs.items()) if fixed else ()
        if shapes not in self._compiled:
            model = self._read()
            if fixed:
                model.reshape({name: list(shape) for name, shape in shapes})
            self._compiled[shapes] = self._core.compile_model(model, "CPU", self._options)
        return self._compiled[shapes]

    def _read(self) -> Any:
        try:
            return self._core.read_model(self._bytes)
        except RuntimeError as error:
            raise UnsupportedError(f"OpenVINO cannot read the model ({_reason(error)}): export it with form='qdq'"
                                   ) from error


def openvino_missing() -> str:
    """'' where OpenVINO is installed, else a sentence that says how to get it."""
    return "" if find_spec("openvino") else "OpenVINO is not installed here: pip install fewbits[openvino]"


def _openvino() -> Any:
    try:
        return import_module("openvino")  # an optional extra, and slow to import
    except ImportError:
        raise UnsupportedError(openvino_missing() or "OpenVINO is installed, but cannot be imported") from None


def _reason(error: Exception) -> str:
    """The summary that stands behind OpenVINO's account of its own source files, without its advice."""
    told = str(error).partition("Summary:")[2].partition("To facilitate")[0].replace("--", "")
    return " ".join(told.split())[:200] or "it is no ONNX that OpenVINO knows"
