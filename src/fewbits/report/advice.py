"""Where a quantized network is far from its float original: which tensors cost most, and what to try."""

from collections.abc import Sequence

import torch

from fewbits.numerics.block import TENSOR
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import Comparison
from fewbits.report.causes import SiteCause
from fewbits.report.explain import Explanation, explain

LOW_SQNR, MANY_FLIPS = 25.0, 0.02
"""dB of the outputs, and share of changed predictions, beyond which advice is given."""
_RUNS = 1024  # of one input through the network, at most about: what finding the tensors may cost
_GAIN = 0.1  # dB: a remedy that gains less is none


def is_far(comparison: Comparison | None, sqnr: float) -> bool:
    """Whether advice is due. comparison: on labelled images, where there are any; sqnr: of the outputs, dB, used where
    there are none."""
    if comparison is None:
        return sqnr < LOW_SQNR
    return comparison.sqnr < LOW_SQNR or comparison.flips > MANY_FLIPS * comparison.samples


def explained(simulation: Simulation, batches: Sequence[torch.Tensor]) -> Explanation:
    """`explain` on as many of the first inputs as it takes to name tensors within a minute or so; two at least."""
    sites = sum(1 for _ in simulation.quantizers())
    return explain(simulation, [batches[0][:max(2, _RUNS // max(2 * sites, 1))]])


def advice(explanation: Explanation, simulation: Simulation) -> tuple[str, ...]:
    """A line for each of the three tensors whose quantization costs the outputs most: what it costs, what to try."""
    gains = {remedy.site: remedy for remedy in explanation.remedies}
    lines = []
    for site in explanation.sites[:3]:
        remedy = gains.get(site.site)
        if remedy is not None and remedy.gain > _GAIN:
            mend = f"{remedy.what} gains {remedy.gain:.1f} dB"
        else:
            mend = _mend(site, simulation)
        cost = max(site.without - explanation.sqnr, 0.0)
        lines.append(f"{site.site} ({site.kind}) costs {cost:.1f} dB of the outputs' {explanation.sqnr:.1f}: {mend}")
    return tuple(lines)


def _mend(site: SiteCause, simulation: Simulation) -> str:
    """What is worth trying where no measured remedy gains."""
    spec = simulation.quantizer(site.site).spec
    if site.kind == "weight" and spec.block == TENSOR:
        return "try `block: channel` for its weights, or repairs: [equalization]"
    if site.bias > 0.3 and not simulation.is_repaired:
        return f"{site.bias:.0%} of its error is a shift of channels: try repairs: [bias-correction]"
    if site.clipping > 0.5:
        return f"{site.clipping:.0%} of its error is clipping: try range minmax, or other calibration data"
    bits = "8 bits" if spec.format.bits < 8 else "more bits, or keep_float: true"
    return f"try {bits} in a rule for its layer"
