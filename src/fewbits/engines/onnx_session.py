"""ONNX Runtime sessions over model bytes, on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from fewbits.errors import ExportError
from fewbits.options import options_checked

Level = Literal["off", "all"]
_LEVELS = {"off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL, "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL}


class OnnxSession:
    """One model loaded into ONNX Runtime.

    model: its bytes, or its file; level: `all` as it runs by default, or `off` without any graph optimisation;
    threads: of one operator; 0 leaves the number to ONNX Runtime. Raises ExportError for a model that it does not open.
    """

    @options_checked
    def __init__(self, model: bytes | Path, level: Level = "all", threads: int = 0):
        options = ort.SessionOptions()
        options.graph_optimization_level = _LEVELS[level]
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # On x86 quantizers around int8 activations are left in float unless this is said; uint8 is not touched by it.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        try:
            self._session = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options,
                                                 providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no class in common
            raise ExportError(f"onnxruntime {ort.__version__} does not open the model that was written of this program "
                              f"(optimisation {level}): {error}") from error
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name."""
        results = self._session.run(None, dict(inputs))
        return {name: np.asarray(result) for name, result in zip(self.outputs, results, strict=True)}


def onnxruntime_version() -> str:
    """Such as 1.31.1."""
    return ort.__version__
