"""Study of weight rounding: one layer, or all, rounded in every classic way.

Ways: nearest, ceil, floor, stochastic (several draws), the best of those draws (chosen on other data than it is
measured on), AdaRound. Scales are the same for all. Source: Nagel et al. 2020, arXiv:2004.10568, table 1 and figure 1.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fewbits.errors import RepairError
from fewbits.numerics.rounding import stochastic
from fewbits.optimize.adaround import Schedule, adaround
from fewbits.optimize.layer import coded_layers
from fewbits.optimize.rounding import grid, integer_encoding, write_codes
from fewbits.options import options_checked
from fewbits.plots.axes import Axis
from fewbits.plots.bars import bars
from fewbits.plots.picture import Picture
from fewbits.program.inputs import Batch
from fewbits.progress import track
from fewbits.quant.simulation import Simulation

Way = Literal["nearest", "ceil", "floor", "stochastic"]
Score = Callable[[Simulation], float]
"""The higher the better: accuracy, or logit SQNR."""


@dataclass(frozen=True)
class Row:
    """One way of rounding. scores: one for each draw; a single one where nothing is drawn."""

    way: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the draws."""
        return statistics.mean(self.scores)

    @property
    def deviation(self) -> float:
        """Standard deviation over the draws; 0 for one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else 0.0

    def __str__(self) -> str:
        spread = f" ± {self.deviation:.2f}" if len(self.scores) > 1 else ""
        return f"{self.way}: {self.mean:.2f}{spread}"


@options_checked
def round_steps(steps: torch.Tensor, way: Way, generator: torch.Generator | None = None) -> torch.Tensor:
    """Whole numbers from numbers counted in steps, before clipping.

    nearest: ties to even; stochastic: up with the probability of the fraction, drawn from `generator`.
    """
    match way:
        case "nearest":
            return torch.round(steps)
        case "ceil":
            return steps.ceil()
        case "floor":
            return steps.floor()
        case "stochastic":
            return stochastic(steps, generator or torch.default_generator)


@options_checked
def rounded(simulation: Simulation, which: Sequence[str], way: Way, generator: torch.Generator) -> Simulation:
    """A simulation with the weights of the named layers rounded in one way."""
    result = simulation.to_repair()
    for layer in coded_layers(simulation):
        if layer.name not in which:
            continue
        encoding = integer_encoding(simulation, layer.weight)
        weight = simulation.model.tensor(layer.weight).detach()
        scale, zero_point = grid(encoding, weight)
        codes = round_steps(weight / scale, way, generator) + zero_point
        write_codes(result, layer.weight, codes.clamp(encoding.format.low, encoding.format.high))
    return result


def picture(rows: Sequence[Row], title: str, metric: str) -> Picture:
    """The table as bars, with the deviation of what was drawn. metric: what the scores are, with their unit."""
    return bars(title, Axis(metric), [row.way for row in rows], [("", [row.mean for row in rows])],
                spread=[[row.deviation for row in rows]])


def rounding_study(simulation: Simulation, batches: Iterable[Batch], score: Score, *, choose: Score,
                   which: Sequence[str] | None = None, draws: int = 20, schedule: Schedule | None = None,
                   seed: int = 0) -> tuple[Row, ...]:
    """The table: one row for each way.

    which: names of layers, all when None; score: what is reported; choose: what the best of the draws is chosen by,
    on data that `score` does not use; batches: for AdaRound, which rounds all layers and counts where
    every layer is studied, or the layers named by themselves. Raises RepairError for a layer that is not there.
    """
    names = [layer.name for layer in coded_layers(simulation)]
    studied = names if which is None else list(which)
    if unknown := [name for name in studied if name not in names]:
        raise RepairError(f"no layer is called {unknown[0]!r}: choose among {', '.join(names)}")
    generator = torch.Generator().manual_seed(seed)
    rows = [Row(way, (score(rounded(simulation, studied, way, generator)),))
            for way in ("nearest", "ceil", "floor")]
    scores, best, highest = [], None, -float("inf")
    for _ in track(range(draws), "drawing roundings"):
        drawn = rounded(simulation, studied, "stochastic", generator)
        scores.append(score(drawn))
        if (chosen := choose(drawn)) > highest:
            best, highest = scores[-1], chosen
    if best is not None:
        rows += [Row("stochastic", tuple(scores)), Row(f"best of {draws} stochastic", (best,))]
    learned = adaround(simulation, batches, schedule=schedule, seed=seed)
    if len(studied) < len(names):
        partly = simulation.to_repair()
        for layer in coded_layers(simulation):
            if layer.name in studied:
                with torch.no_grad():
                    partly.model.tensor(layer.weight).copy_(learned.model.tensor(layer.weight))
        learned = partly
    rows.append(Row("AdaRound", (score(learned),)))
    return tuple(rows)
