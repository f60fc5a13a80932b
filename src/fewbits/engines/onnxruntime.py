"""ONNX Runtime as an engine: the program written as ONNX, as this processor computes it right."""

from dataclasses import dataclass

from fewbits.engines.engine import Arrays, Engine, Prepared, Results
from fewbits.engines.exactness import portable_nodes
from fewbits.engines.onnx_session import Level, OnnxSession
from fewbits.engines.processor import Target, this_processor
from fewbits.options import options_checked
from fewbits.program.program import Program
from fewbits.writers.onnx.builder import output_name
from fewbits.writers.onnx.program import OnnxForm, onnx_bytes


@options_checked
@dataclass(frozen=True)
class OnnxRuntime(Engine):
    """form, level, processor: of the model that it runs; threads: of one operator, 0 leaves the number to it."""

    form: OnnxForm = "integer"
    level: Level = "all"
    threads: int = 0
    processor: Target = "this"

    name = "onnxruntime"

    @property
    def promises(self) -> bool:  # type: ignore[override]
        """Not in QDQ with optimisation off, which sums in float32."""
        return (self.form, self.level) != ("qdq", "off")

    @property
    def setting(self) -> str:
        return f"{self.form}, optimisation {self.level}"

    def refusal(self, program: Program) -> str:
        if program.profile.engine == "onnxruntime":
            return ""
        return f"profile {program.profile.name} rounds in integers as no ONNX operator does"

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        """keep: any value makes it a copy that gives every value but sums."""
        portable = portable_nodes(program, self.processor, this_processor())
        model = onnx_bytes(program, self.form, every_code=bool(keep), portable=portable)
        return PreparedModel(program, OnnxSession(model, self.level, self.threads), keep)


@dataclass(frozen=True)
class PreparedModel(Prepared):
    """An ONNX model in a session, whose outputs bear the names that the writer gave them."""

    program: Program
    session: OnnxSession
    keep: tuple[str, ...] = ()

    def run(self, inputs: Arrays) -> Results:
        outputs = self.session.run(inputs)
        numbers = {name: outputs[output_name(name)] for name in self.program.outputs}
        return Results({name: outputs[name] for name in self.keep if name in outputs}, numbers)
