"""The engines that run a program node by node in this process: the definition itself, torch, and native kernels."""

from dataclasses import dataclass

from fewbits.engines.engine import Arrays, Engine, Prepared, Results
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.kernels import library
from fewbits.program import reference
from fewbits.program.program import Program


@dataclass(frozen=True)
class Reference(Engine):
    """The definition, slow."""

    name = "reference"
    promises = True

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        return _Reference(program, keep)


@dataclass(frozen=True)
class _Reference(Prepared):
    program: Program
    keep: tuple[str, ...]

    def run(self, inputs: Arrays) -> Results:
        return Results(reference.run(self.program, inputs, self.keep))


@dataclass(frozen=True)
class Torch(Engine):
    """The torch executor: integers exact in torch's types."""

    name = "torch"
    promises = True

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        return _Executed(program, TorchExecutor(program), keep)


@dataclass(frozen=True)
class Native(Engine):
    """Our own kernels; what has none runs in torch. threads: at most so many."""

    threads: int = 1

    name = "native"
    promises = True

    @property
    def setting(self) -> str:
        return f"level {library.level()}"

    @property
    def missing(self) -> str:
        return "" if library.native() else "there is no native library here: python -m fewbits.kernels.build makes it"

    def refusal(self, program: Program) -> str:
        return self.missing

    def prepared(self, program: Program, keep: tuple[str, ...]) -> Prepared:
        return _Compiled(program, NativeExecutor(program, self.threads), keep)


@dataclass(frozen=True)
class _Executed(Prepared):
    program: Program
    executor: TorchExecutor | NativeExecutor
    keep: tuple[str, ...]

    def run(self, inputs: Arrays) -> Results:
        return Results(self.executor.run(inputs, self.keep))


@dataclass(frozen=True)
class _Compiled(_Executed):
    executor: NativeExecutor

    def numbers(self, inputs: Arrays) -> Arrays:
        """As it decodes them itself."""
        return self.executor.real(inputs)
