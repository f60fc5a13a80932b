"""How many batches calibration needs: the accuracy of the integers after 5, 10 and 50 of them, beside float.

As the table of Migacz, "8-bit Inference with TensorRT" (GTC 2017), which has it for six networks with entropy
calibration (recipe `w8a8-entropy`): the smaller sets are the beginning of the larger ones.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fewbits.engines.executable import Executable
from fewbits.errors import CalibrationError, DataError
from fewbits.graph.model import Model
from fewbits.lower.lower import lower
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.program.inputs import Batch
from fewbits.program.profile import Profile
from fewbits.quant.plan import Plan
from fewbits.report.accuracy import Accuracy, Classifier, Comparison, compare, evaluate
from fewbits.report.text import percent, points

COUNTS = (5, 10, 50)


@dataclass(frozen=True)
class CalibrationRow:
    """batches: that calibrated; comparison: of the program with float; top5, float_top5: None below 6 classes."""

    batches: int
    comparison: Comparison
    top5: Accuracy | None
    float_top5: Accuracy | None

    def cells(self) -> tuple[str, ...]:
        """batches, top-1, its change, the change's 95 % interval, top-5, its change, flips, SQNR; as texts."""
        seen = self.comparison
        top5 = ("–", "–") if self.top5 is None or self.float_top5 is None else (
            percent(self.top5.mean), points(self.top5.mean - self.float_top5.mean))
        return (str(self.batches), percent(seen.accuracy.mean), points(seen.difference),
                " to ".join(points(end) for end in seen.interval), *top5, str(seen.flips), f"{seen.sqnr:.1f}")


def calibration_study(model: Model, plan: Plan, batches: Iterable[Batch], test: Iterable[Any], *,
                      counts: Sequence[int] = COUNTS, profile: str | Profile = "onnxruntime",
                      float_model: Classifier | None = None,
                      batch_to_inputs: Callable[[Any], Any] | None = None) -> tuple[CalibrationRow, ...]:
    """One row for each count, each of a program calibrated anew on the first so many batches.

    batches, test: re-iterable, as for `calibrate` and `evaluate`; float_model: the original, where it is not `model`.
    Raises CalibrationError where there are fewer batches than the largest count, DataError for a one-shot iterator.
    """
    if any(iter(items) is items for items in (batches, test)):
        raise DataError("a calibration study reads its batches many times: give lists or loaders, no one-shot iterator")
    if not counts or min(counts) < 1:
        raise CalibrationError(f"calibration takes at least one batch: {list(counts)} is no list of counts")
    there = sum(1 for _ in islice(batches, max(counts)))
    if there < max(counts):
        raise CalibrationError(f"there are {there} calibration batches, too few for {max(counts)}: give smaller "
                               "batches, more data, or lower counts")
    original = float_model or model
    rows, float_top5 = [], None
    for count in counts:
        some = list(islice(batches, count)) if plan.repairs else islice(batches, count)
        program = Executable(lower(calibrate_and_repair(model, plan, some, batch_to_inputs=batch_to_inputs), profile))
        top5 = None
        if _classes(program) > 5:
            float_top5 = float_top5 or evaluate(original, test, "top5", batch_to_inputs)
            top5 = evaluate(program, test, "top5", batch_to_inputs)
        rows.append(CalibrationRow(count, compare(original, program, test, batch_to_inputs), top5, float_top5))
    return tuple(rows)


def _classes(program: Executable) -> int:
    """The width of the logits; 0 where the model returns something else than one tensor of them."""
    structure = program.program.structure
    shape = program.program.values[structure].shape if isinstance(structure, str) else ()
    return shape[1] or 0 if len(shape) == 2 else 0
