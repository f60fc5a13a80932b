"""Plans of one network quantized, measured and set beside each other: what the verb and `fb.compare_plans` share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from fewbits.engines.engine import Engine, Prepared
from fewbits.engines.executable import Executable
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.registry import engine as engine_of
from fewbits.errors import DataError, FewbitsError, UnsupportedError
from fewbits.lower.lower import lower
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.options import options_checked
from fewbits.program.inputs import Batch
from fewbits.program.profile import profile as profile_of
from fewbits.program.program import Program
from fewbits.quant.recipe import Recipe
from fewbits.report.accuracy import compare
from fewbits.report.energy import energy_estimates
from fewbits.report.footprint import float_footprint, footprint
from fewbits.report.latency import timed
from fewbits.report.ledger import ledger
from fewbits.report.plan_figures import PlanComparison, PlanFigures, unique_names
from fewbits.report.sizes import float_file_bytes, stored_items
from fewbits.train.untrained import check_untrained, untrained
from fewbits.workflow.quantize import first_two, planned
from fewbits.writers.onnx.twin import float_onnx_bytes

_ROUNDS, _SECONDS = 100, 3.0  # of timing, for all plans together


@options_checked
def run_compare_plans(net: nn.Module, calibration: Iterable[Batch], test: Iterable[Any],
                      recipes: Sequence[str | Path | Recipe], *, profile: str = "onnxruntime",
                      engine: str | Engine | None = None, name: str = "model",
                      names: Sequence[str] = ()) -> PlanComparison:
    """Every recipe taken to its Program and measured on the test batches.

    net: in float, left as it is; calibration: re-iterable; test: re-iterable, batches of (inputs, labels), or of inputs
    alone, of which no accuracy is told; engine: whose latency is measured, of one input, the plans turn by turn (the
    float network in ONNX Runtime); None measures none; names: of the recipes, their own where there are none. A recipe
    that has no program, or is refused in another way, is told and loses nothing of the others.
    Raises OptionError for no recipes, and where every one is refused the error of the first.
    """
    if not recipes:
        raise DataError("there are no recipes to compare: give one or more")
    given = names or [str(each) if not isinstance(each, Recipe) else "recipe" for each in recipes]
    chosen = None if engine is None else engine_of(engine)
    net = net.eval()
    batches = list(test) if not hasattr(test, "__len__") and iter(test) is test else test
    labelled = _labelled(batches)
    measured = batches if labelled else _Pseudo(net, batches)
    plans: list[PlanFigures] = []
    programs: list[Program | None] = []
    first_error: FewbitsError | None = None
    float_bytes = 0
    for title, recipe in zip(unique_names([Path(each).stem if each.endswith(".yaml") else each for each in given]),
                             recipes, strict=True):
        try:
            program, size, stored = _program(net, calibration, recipe, profile)
            comparison = compare(net, Executable(program), measured)
        except FewbitsError as error:
            first_error = first_error or error
            plans.append(PlanFigures(title, refused=f"{type(error).__name__}: {error}", labelled=labelled))
            programs.append(None)
            continue
        float_bytes = size
        plans.append(PlanFigures(title, comparison, labelled, stored, footprint(program),
                                 energy_estimates(program)[0].integers.total))
        programs.append(program)
    whole = next((program for program in programs if program is not None), None)
    if whole is None:
        assert first_error is not None
        raise first_error
    original = PlanFigures("float", labelled=labelled, bytes=float_bytes, footprint=float_footprint(whole),
                           energy=energy_estimates(whole)[0].original.total)
    if chosen is None:
        return PlanComparison(name, original, tuple(plans))
    original, timed_plans = _with_latency(original, plans, programs, whole, chosen, measured)
    return PlanComparison(name, original, timed_plans, chosen.name)


def _program(net: nn.Module, calibration: Iterable[Batch], recipe: str | Path | Recipe,
             profile: str) -> tuple[Program, int, int]:
    """The program of a recipe, bytes of the float network, and bytes that any file of the program must hold."""
    model, resolved = planned(net, first_two(calibration), recipe)
    check_untrained(resolved, recipe)
    chosen = profile_of(profile)
    simulation = untrained(calibrate_and_repair(model, resolved, calibration, profile=chosen))
    program = lower(simulation, chosen)
    entries = ledger(program, simulation.plan, simulation.model.graph)
    return program, float_file_bytes(model), sum(item.bytes for item in stored_items(entries))


def _with_latency(original: PlanFigures, plans: Sequence[PlanFigures], programs: Sequence[Program | None],
                  whole: Program, engine: Engine, test: Iterable[Any]) -> tuple[PlanFigures, tuple[PlanFigures, ...]]:
    one = _first_input(whole, test)
    session = OnnxSession(float_onnx_bytes(whole), "all", 1)
    runs: list[Callable[[], object]] = [lambda: session.run(one)]
    places = []
    for place, program in enumerate(programs):
        if program is None:
            continue
        try:
            prepared = engine.prepare(program)
        except UnsupportedError:
            continue
        places.append(place)
        runs.append(_runner(prepared, one))
    times = [median(taken) for taken in timed(runs, _ROUNDS, _SECONDS)]
    found = list(plans)
    for place, time in zip(places, times[1:], strict=True):
        found[place] = replace(found[place], latency=time)
    return replace(original, latency=times[0]), tuple(found)


def _runner(prepared: Prepared, inputs: dict[str, np.ndarray]) -> Callable[[], object]:
    return lambda: prepared.numbers(inputs)


def _first_input(program: Program, test: Iterable[Any]) -> dict[str, np.ndarray]:
    inputs, _ = next(iter(test))
    tensors = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs.values() if isinstance(inputs, dict)
                                                                    else inputs)
    return {name: tensor[:1].numpy() for name, tensor in zip(program.inputs, tensors, strict=True)}


def _labelled(batches: Iterable[Any]) -> bool:
    for batch in batches:
        return (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)
                and batch[1].dtype == torch.int64 and batch[1].ndim == 1)
    raise DataError("there are no test batches to measure on: give at least one")


class _Pseudo(Iterable[Any]):
    """Batches of inputs with the float network's own classes for labels, so that what changes can be counted."""

    def __init__(self, net: nn.Module, batches: Iterable[Any]):
        self._net, self._batches = net, batches

    def __iter__(self):
        for batch in self._batches:
            with torch.no_grad():
                yield batch, self._net(batch).argmax(1)
