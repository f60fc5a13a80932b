"""Pictures of what verbs found, for `--plot`: histograms with ranges, KL curves, calibration, compressed weights."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from fewbits.artifact.weights import WeightsFile
from fewbits.errors import OptionError
from fewbits.plots.axes import Axis
from fewbits.plots.bars import bars
from fewbits.plots.counted import by_octave, by_value
from fewbits.plots.histogram import drawn, histogram
from fewbits.plots.picture import Picture, beside
from fewbits.plots.points import Series, points
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation
from fewbits.ranges.histogram import Histogram
from fewbits.ranges.kl import KlRule, divergences
from fewbits.report.calibration_study import CalibrationRow
from fewbits.report.causes import Plot
from fewbits.report.explain import Explanation

_BINS, _MAGNITUDES = 2048, 128  # of the KL curve, as TensorRT has them for 8 bits with a sign


def histograms(explanation: Explanation) -> Picture:
    """Two histograms a tensor, by value and by powers of two, with the range that its codes represent."""
    pictures = [picture for site in explanation.sites for picture in _both(site.site, site.plot)]
    return beside(*pictures)


def _both(name: str, plot: Plot) -> tuple[Picture, Picture]:
    linear = drawn(name, Axis("x"), by_value(plot.counts, plot.edges, plot.low, plot.high),
                   ("lowest code", "highest code"), logarithmic=True)
    octaves = drawn(f"{name}, without {plot.zeros} zeros" if plot.zeros else name, Axis("log2 |x|"),
                    by_octave(plot.log2_counts, plot.exponents, max(abs(plot.low), abs(plot.high)), plot.step),
                    ("step / 2", "end of range"), logarithmic=True)
    return linear, octaves


def kl_curves(simulation: Simulation) -> Picture:
    """Divergence of every threshold for each tensor whose range rule is KL, and the range that was chosen.

    Raises OptionError as `check_kl_curves` does.
    """
    wanted = [quantizer for quantizer in simulation.quantizers() if isinstance(quantizer.spec.rule, KlRule)]
    observers = [quantizer.observer for quantizer in wanted]
    check_kl_curves(simulation.plan, cached=any(not each.count for each in observers))
    pictures = []
    for quantizer, observer in zip(wanted, observers, strict=True):
        assert isinstance(observer, Histogram), "which that rule observes with"
        magnitudes, width = observer.blocks[0].magnitudes(_BINS)
        levels = min(_MAGNITUDES, len(magnitudes))
        curve = divergences(magnitudes, levels, "slides")
        x, y = [bins * width for bins in curve], list(curve.values())
        least = min(value for value in y if value > 0) if any(value > 0 for value in y) else 1e-12
        encoding = quantizer.encoding
        ends = [abs(float(encoding.scale) * (end - float(encoding.zero_point)))
                for end in (encoding.format.low, encoding.format.high)]
        pictures.append(points(quantizer.site, Axis("threshold"), Axis("KL(P‖Q), nats", logarithmic=True),
                               [Series("KL", x, [max(value, least) for value in y], line=True)],
                               marks=[(max(ends), "chosen")]))
    return beside(*pictures)


def check_kl_curves(plan: Plan, cached: bool) -> None:
    """Raises OptionError for a plan without a tensor whose range rule is KL, and for ranges that come from a cache,
    which keeps no histograms to draw."""
    if not any(isinstance(site.spec.rule, KlRule) for site in plan.sites.values() if site.spec is not None):
        raise OptionError("no tensor here takes its range by KL divergence: give a recipe such as w8a8-entropy")
    if cached:
        raise OptionError("the ranges come from a cache, which keeps no histograms to draw: give another --cache")


def calibration(rows: Sequence[CalibrationRow], title: str) -> Picture:
    """Accuracy of float and of the integers after so many batches of calibration."""
    batches = [float(row.batches) for row in rows]
    return points(title, Axis("calibration batches", logarithmic=True), Axis("accuracy, %"),
                  [Series("integers", batches, [100 * row.comparison.accuracy.mean for row in rows], line=True),
                   Series("float", batches, [100 * row.comparison.float_accuracy.mean for row in rows], line=True)])


def compressed(file: WeightsFile, originals: Mapping[str, Tensor]) -> Picture:
    """Bytes of every tensor as floats and in the file; of the largest one that shares values: its weights before, where
    the originals hold them, and after, how often each of its codes occurs, and the distances of its weights where some
    were pruned."""
    stored: dict[str, int] = {}
    for item in file.items():
        stored[item.layer] = stored.get(item.layer, 0) + item.bytes
    tensors = {name: file.tensor(name) for name in file.names}
    floats = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    shown = sorted((name for name in floats if floats[name] and stored.get(name)), key=lambda name: -floats[name])[:6]
    pictures = [bars("Bytes", Axis("bytes", logarithmic=True), shown,
                     [("decoded", [floats[name] for name in shown]),
                      ("in the file", [stored[name] for name in shown])])]
    shared = [name for name in file.bounds() if tensors[name].numel()]
    if shared:
        largest = max(shared, key=lambda name: floats[name])
        values = tensors[largest].float().numpy().ravel()
        kept = np.flatnonzero(values)
        numbers, codes = np.unique(values[kept], return_inverse=True)
        if largest in originals:
            before = originals[largest].detach().float().numpy().ravel()
            pictures.append(histogram(f"{largest}: its weights before", before[before != 0], bins=128))
        pictures += [histogram(f"{largest}: after, {len(numbers)} values", values[kept], bins=128),
                     histogram(f"{largest}: how often each code occurs", codes, bins=max(len(numbers), 2))]
        if len(kept) < 0.95 * len(values):
            gaps = np.diff(kept, prepend=-1)
            pictures.append(histogram(f"{largest}: distances of the {len(kept)} weights that are left", gaps,
                                      bins=int(min(gaps.max(), 64))))
    return beside(*pictures)
