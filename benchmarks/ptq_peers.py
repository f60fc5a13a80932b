"""ONNX Runtime's own quantizer on the same network and batches: W8A8, weights symmetric per channel, QDQ."""

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

PEERS = {"ONNX Runtime min-max": CalibrationMethod.MinMax, "ONNX Runtime entropy": CalibrationMethod.Entropy,
         "ONNX Runtime percentile": CalibrationMethod.Percentile}


class _Batches(CalibrationDataReader):
    def __init__(self, batches: Iterable[torch.Tensor]):
        self._left: Iterator[torch.Tensor] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        batch = next(self._left, None)
        return None if batch is None else {"x": batch.numpy()}


def float_onnx(net: nn.Module, example: torch.Tensor, path: Path) -> None:
    """The float network as torch exports it, its batch norms folded, with a free batch axis."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad():
            outputs = net(example)
        names = ["y"] if isinstance(outputs, torch.Tensor) else [f"y{number}" for number in range(len(outputs))]
        torch.onnx.export(net, (example,), str(path), input_names=["x"], output_names=names, dynamo=False,
                          dynamic_axes={name: {0: "n"} for name in ("x", *names)})


def quantize_to(folder: Path, net: nn.Module, batches: Iterable[torch.Tensor], method: CalibrationMethod) -> Path:
    """The quantized file, its pads, biases and thresholds as ONNX Runtime's defaults have them."""
    float_onnx(net, next(iter(batches))[:2], folder / "float.onnx")
    quant_pre_process(folder / "float.onnx", folder / "ready.onnx", skip_symbolic_shape=True)
    quantize_static(folder / "ready.onnx", folder / "quantized.onnx", _Batches(batches), quant_format=QuantFormat.QDQ,
                    per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=method)
    return folder / "quantized.onnx"


def quantized_by_onnxruntime(net: nn.Module, batches: Iterable[torch.Tensor],
                             name: str) -> Callable[[torch.Tensor], Any]:
    """The network as ONNX Runtime quantizes and runs it: one tensor, or a tuple of them. name: of `PEERS`."""
    with tempfile.TemporaryDirectory() as folder:
        path = quantize_to(Path(folder), net, batches, PEERS[name])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(x: torch.Tensor) -> Any:
        found: Any = session.run(None, {"x": x.numpy()})
        return torch.from_numpy(found[0]) if len(found) == 1 else tuple(torch.from_numpy(one) for one in found)

    return run
