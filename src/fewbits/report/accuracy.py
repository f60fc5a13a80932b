"""How often a classifier is right, with the interval that the number of images allows; and two compared."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch

from fewbits.capture.evaluating import evaluating
from fewbits.errors import DataError
from fewbits.progress import track
from fewbits.quant.calibrate import BatchToInputs
from fewbits.report.intervals import Interval, clopper_pearson, paired_difference, sign_test
from fewbits.report.sqnr import decibels

Classifier = Callable[..., Any]
"""Called with the inputs of a batch: a torch module, a Simulation, a quantized model."""
Metric = str | Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Accuracy:
    """A mean score over images. interval: 95 %, exact (Clopper-Pearson) where every score is 0 or 1,
    mean ± 1.96 standard errors otherwise."""

    mean: float
    samples: int
    interval: Interval

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.mean:.2f} % ({100 * low:.2f} to {100 * high:.2f} %, {self.samples} samples)"


@dataclass(frozen=True)
class Comparison:
    """A quantized classifier beside its float original, image by image.

    flips: images whose top-1 class differs; lost, gained: images that only the float, only the quantized
    model gets right; interval: exact 95 % of accuracy less float accuracy (intervals.paired_difference);
    p_value: of "as many gained as lost" (intervals.sign_test); sqnr: in dB, the mean over images of
    10 · log10(energy of the image's float logits / energy of their error), each at most 144.5.
    """

    float_accuracy: Accuracy
    accuracy: Accuracy
    flips: int
    lost: int
    gained: int
    interval: Interval
    p_value: float
    sqnr: float

    @property
    def samples(self) -> int:
        """Images compared."""
        return self.accuracy.samples

    @property
    def net_lost(self) -> int:
        """Images lost less images gained."""
        return self.lost - self.gained

    @property
    def difference(self) -> float:
        """accuracy less float accuracy."""
        return self.accuracy.mean - self.float_accuracy.mean

    def __str__(self) -> str:
        return (f"{100 * self.float_accuracy.mean:.2f} → {100 * self.accuracy.mean:.2f} % of {self.samples}: "
                f"{self.flips} flips, {self.net_lost} net lost, {self.sqnr:.1f} dB")


def evaluate(model: Classifier, batches: Iterable[Any], metric: Metric = "top1",
             batch_to_inputs: BatchToInputs = None) -> Accuracy:
    """The model's mean score over labelled batches, in one pass, one batch in memory at a time.

    model: called with a batch's inputs (a tensor, the members of a tuple, or those of a dict by name); a
    torch module is run in evaluation mode and put back. batches: (inputs, labels) each, labels int64 [N];
    batch_to_inputs: turns the inputs of a batch into what the model takes. metric: `top1`, `top5`, or a
    callable from (outputs, labels) to one score per image, a real tensor [N].
    Raises DataError for batches without labels, no batches, labels beyond the classes, NaN.
    """
    score = _metric(metric)
    scores = _Scores()
    with evaluating(model):
        for number, inputs, labels in _labelled(batches, batch_to_inputs):
            with _named(number):
                scores.add(_checked_scores(score(_call(model, inputs), labels), labels))
    return scores.accuracy()


def compare(float_model: Classifier, quantized_model: Classifier, batches: Iterable[Any],
            batch_to_inputs: BatchToInputs = None) -> Comparison:
    """Both models on every batch, in one pass; arguments and errors as for `evaluate`, metric top-1.

    Also raises DataError for Inf among the logits, of which no error can be taken.
    """
    before, after = _Scores(), _Scores()
    flips = lost = gained = 0
    decibels_sum = 0.0
    with evaluating(float_model), evaluating(quantized_model):
        for number, inputs, labels in _labelled(batches, batch_to_inputs):
            with _named(number):
                reference = _logits(_call(float_model, inputs), labels).cpu().double()
                quantized = _logits(_call(quantized_model, inputs), labels).cpu().double()
                if reference.shape != quantized.shape:
                    raise DataError(f"the models return {list(reference.shape)} and {list(quantized.shape)}: "
                                    "compare a model with its own float original")
                if not (torch.isfinite(reference).all() and torch.isfinite(quantized).all()):
                    raise DataError("the outputs hold Inf: their error cannot be measured")
                right, now = reference.argmax(1) == labels, quantized.argmax(1) == labels
            flips += int((reference.argmax(1) != quantized.argmax(1)).sum())
            lost, gained = lost + int((right & ~now).sum()), gained + int((~right & now).sum())
            before.add(right.double())
            after.add(now.double())
            error = (reference - quantized).square().sum(1)
            decibels_sum += float(decibels(reference.square().sum(1).numpy(), error.numpy()).sum())
    samples = after.count
    accuracies = before.accuracy(), after.accuracy()
    return Comparison(*accuracies, flips, lost, gained, paired_difference(gained, lost, samples),
                      sign_test(gained, lost), decibels_sum / samples)


@dataclass
class _Scores:
    """Running sums of per-image scores."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    binary: bool = True

    def add(self, scores: torch.Tensor) -> None:
        scores = scores.double()
        self.count += len(scores)
        self.total += float(scores.sum())
        self.squares += float(scores.square().sum())
        self.binary = self.binary and bool(((scores == 0) | (scores == 1)).all())

    def accuracy(self) -> Accuracy:
        if not self.count:
            raise DataError("there are no labelled images: give at least one batch")
        mean = self.total / self.count
        if self.binary:
            return Accuracy(mean, self.count, clopper_pearson(round(self.total), self.count))
        if self.count < 2:
            raise DataError("one image gives no interval for a metric of real scores: give at least two")
        variance = max(self.squares - self.count * mean**2, 0.0) / (self.count - 1)
        margin = 1.959964 * sqrt(variance / self.count)
        return Accuracy(mean, self.count, (mean - margin, mean + margin))


def _labelled(batches: Iterable[Any],
              batch_to_inputs: BatchToInputs) -> Iterator[tuple[int, Any, torch.Tensor]]:
    """(number, inputs, labels) of each batch."""
    for number, batch in enumerate(track(batches, "evaluating")):
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)):
            raise DataError(f"batch {number} has no labels: accuracy needs batches of (inputs, labels)")
        inputs, labels = batch
        yield number, inputs if batch_to_inputs is None else batch_to_inputs(inputs), labels.cpu()


@contextmanager
def _named(number: int) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"batch {number}: {error}") from error


def _call(model: Classifier, inputs: Any) -> Any:
    with torch.no_grad():
        match inputs:
            case torch.Tensor():
                return model(inputs)
            case tuple() | list():
                return model(*inputs)
            case Mapping():
                return model(**inputs)
    raise DataError(f"its inputs are a {type(inputs).__name__}: "
                    "pass batch_to_inputs to turn them into tensors")


def _metric(metric: Metric) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    if callable(metric):
        return metric
    if metric not in ("top1", "top5"):
        raise DataError(f"no metric is called {metric!r}: write top1, top5, or give a callable")
    k = int(metric[3:])

    def score(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
        logits = _logits(outputs, labels)
        if logits.shape[1] < k:
            raise DataError(f"{metric} needs {k} classes, and the model has {logits.shape[1]}")
        best = logits.argmax(1, keepdim=True) if k == 1 else logits.topk(k, 1).indices
        return (best.cpu() == labels[:, None]).any(1).double()

    return score


def _logits(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """The outputs, checked to be one row of finite-or-infinite logits per label."""
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2:
        what = list(outputs.shape) if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        raise DataError(f"the model returns {what}, and top-k accuracy needs logits [N, classes]: "
                        "give a metric of your own")
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(outputs):
        raise DataError(f"labels {list(labels.shape)} ({labels.dtype}) do not fit {len(outputs)} "
                        "rows of logits: give one integer per image")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < outputs.shape[1]:
        raise DataError(f"labels go from {int(labels.min())} to {int(labels.max())}, "
                        f"and the model has {outputs.shape[1]} classes")
    if outputs.isnan().any():
        raise DataError("the model returns NaN: look at its weights and at the data")
    return outputs


def _checked_scores(scores: Any, labels: torch.Tensor) -> torch.Tensor:
    if not isinstance(scores, torch.Tensor) or scores.shape != labels.shape[:1]:
        raise DataError(f"a metric returns one score per image, a tensor of shape [{len(labels)}]")
    scores = scores.detach().cpu()
    if scores.isnan().any():
        raise DataError("the metric returns NaN")
    return scores
