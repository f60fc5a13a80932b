"""What a training came to, epoch by epoch: as JSON, and as a curve with the switch to few bits marked."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from fewbits.plots.axes import Axis
from fewbits.plots.picture import Picture
from fewbits.plots.points import Series, points
from fewbits.train.fit import Epoch


def history_json(before: float | None, epochs: Sequence[Epoch], what: str) -> str:
    """before: the score of the float network, None where it was not scored; what: is scored, in words."""
    return json.dumps({"score": what, "float": before, "epochs": [asdict(epoch) for epoch in epochs]}, indent=1) + "\n"


def curve(before: float | None, epochs: Sequence[Epoch], what: str) -> Picture:
    """The score after each epoch; that of the float network stands at 0, where few bits begin."""
    scored = [(epoch.number, epoch.score) for epoch in epochs if epoch.score is not None]
    series = [Series("few bits", [number for number, _ in scored], [score for _, score in scored], line=True)]
    marks: list[tuple[float, str]] = []
    if before is not None:
        series.insert(0, Series("float", [0], [before], [f"{before:.2f}"]))
        marks.append((0, "few bits begin"))
    return points("Training in few bits", Axis("epoch"), Axis(what), series, marks)
