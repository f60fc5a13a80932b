"""Writing ONNX files that were checked first."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fewbits.errors import VerificationError
from fewbits.export.onnx import Form, onnx_bytes, output_name
from fewbits.files import write_whole
from fewbits.program.inputs import Batch, bind
from fewbits.program.program import Program
from fewbits.progress import track
from fewbits.run.onnx_session import Level, OnnxSession
from fewbits.run.torch_executor import TorchExecutor

_LEVELS: dict[Form, tuple[Level, ...]] = {"integer": ("off", "all"), "qdq": ("all",)}
"""Optimisation levels at which each form must equal the program."""


def export_onnx(program: Program, path: str | Path, verify: Iterable[Batch], *, form: Form = "integer",
                batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes the program as ONNX, after ONNX Runtime gave the program's outputs, bit for bit, on every batch
    of `verify`: the integer form with optimisation off and on, QDQ as it runs by default.

    Returns the number of output codes compared. Raises VerificationError, and writes nothing, when one
    differs or there was no batch; FileError when the file cannot be written.
    """
    model = onnx_bytes(program, form)
    sessions = [(level, OnnxSession(model, level)) for level in _LEVELS[form]]
    executor = TorchExecutor(program)
    compared = 0
    for number, batch in enumerate(track(verify, "verifying")):
        inputs = {name: x.detach().cpu().numpy() for name, x in bind(program.inputs, batch, batch_to_inputs).items()}
        codes = executor.run(inputs)
        for level, session in sessions:
            outputs = session.run(inputs)
            for name in program.outputs:
                differing = int((program.encoding(name).decode(codes[name]) != outputs[output_name(name)]).sum())
                compared += codes[name].size
                if differing:
                    raise VerificationError(
                        f"{path} was not written: onnxruntime (optimisation {level}) differs from the program in "
                        f"{differing} of {codes[name].size} values of {name!r} on batch {number}; "
                        f"the program relies on {' and on '.join(program.profile.relies_on) or 'nothing special'}")
    if not compared:
        raise VerificationError(f"{path} was not written: there was no batch to verify it on")
    write_whole(path, model)
    return compared
