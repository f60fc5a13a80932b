"""OpenVINO as an engine: an optional extra that promises no equal codes (docs/openvino.md)."""

from dataclasses import dataclass

from fewbits.engines.engine import Arrays, Engine, Prepared, Results
from fewbits.engines.openvino_session import OpenVinoSession, Setting, openvino_missing
from fewbits.options import options_checked
from fewbits.program.program import Program
from fewbits.writers.onnx.builder import output_name
from fewbits.writers.onnx.program import onnx_bytes


@options_checked
@dataclass(frozen=True)
class OpenVino(Engine):
    """It reads the QDQ form. settings: what is left to OpenVINO; threads: of one inference."""

    settings: Setting = "float32, fixed batch"
    threads: int = 1

    name = "openvino"
    promises = False

    @property
    def missing(self) -> str:
        return openvino_missing()

    @property
    def setting(self) -> str:
        return f"qdq, {self.settings}"

    def refusal(self, program: Program) -> str:
        if program.profile.engine == "onnxruntime":
            return ""
        return f"profile {program.profile.name} rounds in integers as no ONNX operator does"

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        """keep: any value makes it a copy that gives every value but sums."""
        model = onnx_bytes(program, "qdq", every_code=bool(keep))
        return _Prepared(program, OpenVinoSession(model, self.settings, self.threads), keep)


@dataclass(frozen=True)
class _Prepared(Prepared):
    program: Program
    session: OpenVinoSession
    keep: tuple[str, ...]

    def run(self, inputs: Arrays) -> Results:
        outputs = self.session.run(inputs)
        numbers = {name: outputs[output_name(name)] for name in self.program.outputs}
        return Results({name: outputs[name] for name in self.keep if name in outputs}, numbers)
