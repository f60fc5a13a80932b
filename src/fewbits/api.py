"""The verbs in Python, and the object that lowering gives: a program one can call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, overload

from torch import nn

from fewbits.artifact.file import UNKNOWN, read
from fewbits.artifact.save import save_verified
from fewbits.capture.capture import Example
from fewbits.capture.capture import capture as capture_whole
from fewbits.capture.exporter import BatchSize
from fewbits.capture.whole import Whole, capture_parts
from fewbits.data.preparation import Preparation
from fewbits.engines.engine import Engine
from fewbits.engines.executable import Executable
from fewbits.engines.processor import Target
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import OptionError
from fewbits.export.verified import export_onnx as export_program
from fewbits.graph.model import Model
from fewbits.lower.lower import lower as lower_simulation
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.options import check_stage, options_checked
from fewbits.program.inputs import Batch
from fewbits.program.profile import Profile
from fewbits.program.profile import profile as profile_of
from fewbits.program.program import Program
from fewbits.pt2.pt2 import read_pt2
from fewbits.quant.presets import DEFAULT_RECIPE
from fewbits.quant.recipe import Recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import Accuracy, Classifier, Metric
from fewbits.report.accuracy import evaluate as measure
from fewbits.report.batches import BatchToInputs
from fewbits.report.explain import Explanation
from fewbits.report.plan_figures import PlanComparison
from fewbits.report.report import Report, build
from fewbits.search.limit import Limit
from fewbits.search.space import RANGES
from fewbits.train.untrained import check_untrained, untrained
from fewbits.workflow.compare_plans import run_compare_plans
from fewbits.workflow.quantize import planned
from fewbits.workflow.search import Found, Method, run_search
from fewbits.writers.onnx.program import OnnxForm


class QuantizedModel(Executable):
    """What lowering gives: a program that can be called, and saved.

    preparation: what it expects of its data, which the file keeps; of a loaded model, what its file says.
    """

    def __init__(self, program: Program, engine: str | Engine = "fastest", preparation: Preparation = UNKNOWN):
        super().__init__(program, engine)
        self.preparation = preparation

    def save(self, path: str | Path, preparation: Preparation | None = None) -> None:
        """Writes a `.fewbits` file (docs/file-format.md). preparation: in place of the model's own. Raises
        VerificationError when the torch executor does not compute its test vectors, and FileError; an older file there
        survives."""
        save_verified(self.program, path, self.preparation if preparation is None else preparation)


@overload
def capture(net: nn.Module | str | Path, example: Example, *, batch: BatchSize = "any") -> Model: ...
@overload
def capture(net: nn.Module | str | Path, example: Example, parts: Sequence[str]) -> Whole: ...
@options_checked
def capture(net: nn.Module | str | Path, example: Example, parts: Sequence[str] | None = None, *,
            batch: BatchSize = "any") -> Model | Whole:
    """The graph of a network (capture/capture.py); or with `parts`, graphs of those submodules (capture/whole.py), as
    for detectors, whose boxes are chosen by code that has no integer form. net: a module, or the path of a .pt2 file,
    of which nothing is unpickled or run (pt2/pt2.py); batch: `fixed` for a network, taken whole, whose batches all have
    the example's size."""
    given = net if isinstance(net, nn.Module) else read_pt2(net)
    return capture_whole(given, example, batch) if parts is None else capture_parts(given, example, parts)


def lower(simulation: Simulation, profile: str | Profile = "onnxruntime", *,
          engine: str | Engine = "fastest") -> QuantizedModel:
    """The integer program that the simulation stands for (lower/lower.py), ready to be run by `engine`, as `load` takes
    it."""
    check_stage("simulation", simulation, Simulation, "fb.calibrate(model, plan, batches)")
    chosen = engine_of(engine)
    return QuantizedModel(lower_simulation(simulation, profile), chosen)


def evaluate(model: Classifier, batches: Iterable[Any], metric: Metric = "top1", batch_to_inputs: BatchToInputs = None,
             *, engine: str | Engine | None = None) -> Accuracy:
    """The model's mean score over labelled batches (report/accuracy.py). engine: runs a quantized model in place of its
    own, as `load` takes it. Raises OptionError for an engine and a model that is no quantized one."""
    if engine is not None:
        if not isinstance(model, Executable):
            raise OptionError(f"engine = {engine!r} is for quantized models, and a {type(model).__name__} runs as it "
                              "is: leave it out")
        model = Executable(model.program, engine)
    return measure(model, batches, metric, batch_to_inputs)


def quantize(net: nn.Module, example: Example, batches: Iterable[Batch] = (),
             recipe: str | Path | Recipe = DEFAULT_RECIPE, profile: str | Profile = "onnxruntime", *,
             batch_to_inputs: Callable[[Any], Any] | None = None) -> QuantizedModel:
    """All of it at once: capture, fold, plan, calibrate, repair, lower.

    net: left as it is; example, batches: as `capture` and `calibrate` take them; recipes that take no ranges from data
    and name no repairs, such as `w8`, need no batches. Repairs look at the first inputs of the batches
    (optimize/repairs.py). Raises RecipeError for a recipe whose methods are nothing without training
    (train/untrained.py).
    """
    model, resolved = planned(net, example, recipe)
    check_untrained(resolved, recipe)
    chosen = profile_of(profile) if isinstance(profile, str) else profile
    return lower(untrained(calibrate_and_repair(model, resolved, batches, profile=chosen,
                                                batch_to_inputs=batch_to_inputs)), chosen)


@options_checked
def search(model: Model, calibration: Iterable[Batch], samples: Iterable[Any], *, max_drop: float | None = None,
           min_sqnr: float | None = None, max_flips: float | None = None, minimize: str = "bytes",
           limits: Mapping[str, float] | None = None, menu: str | Sequence[str] = "int",
           ranges: str | Sequence[str] = RANGES, repairs: Sequence[str] | None = None,
           recipe: str | Recipe = "w8a8", method: Method = "solver", profile: str = "onnxruntime",
           log: str | Path | None = None, executor: Executor | None = None, workers: int = 1, seed: int = 0,
           engine: str | Engine = "fastest") -> Found:
    """The plan that costs least and keeps a limit (search/search.py): `.recipe` is what `plan` takes, `.front` plans
    that none beats.

    model: folded; calibration: batches that ranges come from, re-iterable; samples: batches of inputs, or of (inputs,
    labels), that decide, which are not those to report on. max_drop: points of accuracy that may be lost; min_sqnr: dB
    kept; max_flips: percent of the samples whose class may change. minimize, limits: of search/costs.py by name;
    menu: candidates; ranges: rules that integers may take; repairs: of the winner, in place of those that the recipe
    names; recipe: what is not searched; log: a file of all evaluations, gone on from where it exists; executor:
    anything with the interface of `concurrent.futures.Executor`, with so many `workers`; engine: runs the programs, as
    `load` takes it.
    """
    return run_search(model, calibration, list(samples), Limit(max_drop, min_sqnr, max_flips), base=recipe,
                      candidates=menu, minimize=minimize, limits=limits, ranges=ranges, repairs=repairs,
                      method=method, profile=profile, log=None if log is None else Path(log), executor=executor,
                      workers=workers, seed=seed,
                      engine=engine_of(engine))


@options_checked
def compare_plans(net: nn.Module, calibration: Iterable[Batch], test: Iterable[Any],
                  recipes: Sequence[str | Path | Recipe], *, profile: str = "onnxruntime",
                  engine: str | Engine | None = None, names: Sequence[str] = ()) -> PlanComparison:
    """Recipes of one network, each taken to its Program, beside each other: accuracy, flips, SQNR, bytes, memory, bit
    operations, energy, and latency in `engine` (workflow/compare_plans.py). `print` it, `.render()`, `.page()`,
    `.picture("bops", "accuracy")`, `.to_json()`.

    net: in float; calibration: re-iterable; test: re-iterable batches of (inputs, labels), or of inputs alone.
    """
    return run_compare_plans(net, calibration, test, recipes, profile=profile, engine=engine, names=names)


@options_checked
def load(path: str | Path, engine: str | Engine = "fastest") -> QuantizedModel:
    """The model in a `.fewbits` file, its hashes checked, to be run by `engine`: `fastest` (of those with the
    reference's codes, chosen here), `native`, `torch`, `reference`, `onnxruntime`, `openvino`, one that another package
    offers, or an Engine (engines/registry.py). Raises OptionError for a name that no engine has, FileError when the
    file is damaged or foreign, UnsupportedError where the engine does not run its program, or nothing here."""
    chosen, saved = engine_of(engine), read(path)
    return QuantizedModel(saved.program, chosen, saved.preparation)


@options_checked
def export_onnx(model: QuantizedModel, path: str | Path, verify: Iterable[Batch], *, form: OnnxForm = "integer",
                processor: Target = "any", batch_to_inputs: Callable[[Any], Any] | None = None) -> int:
    """Writes ONNX after checking it on `verify` (export/verified.py); returns the codes compared. processor: where the
    file must be exact: `any` x86-64, those with `vnni` (faster there), or `this` one."""
    check_stage("model", model, Executable, "fb.lower(sim)")
    return export_program(model.program, path, verify, form=form, processor=processor,
                          batch_to_inputs=batch_to_inputs)


@options_checked
def report(model: QuantizedModel, *, sim: Simulation, batches: Iterable[Batch], test: Iterable[Any] | None = None,
           explanation: Explanation | None = None, batch_to_inputs: Callable[[Any], Any] | None = None,
           processor: Target = "any") -> Report:
    """What happened: ledger, errors by tensor, engines compared, bytes, latency; accuracy where `test` gives labels.

    sim: the simulation the model was lowered from; batches: re-iterable; test: (inputs, labels) batches;
    explanation: of `fb.explain`, its plots shown in the page; processor: as for `export_onnx`.
    """
    check_stage("model", model, Executable, "fb.lower(sim)")
    check_stage("sim", sim, Simulation, "fb.calibrate(model, plan, batches)")
    return build(model.program, sim, batches, test=test, explanation=explanation,
                 batch_to_inputs=batch_to_inputs, processor=processor)
