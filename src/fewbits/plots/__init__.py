"""Pictures of numbers, as static SVG: points and curves, bars, histograms, matrices; and tables as text."""

from fewbits.plots.axes import Axis
from fewbits.plots.bars import bars
from fewbits.plots.histogram import histogram
from fewbits.plots.matrix import matrices
from fewbits.plots.picture import Picture, beside
from fewbits.plots.points import Series, points
from fewbits.plots.table import Table, table

__all__ = ["Axis", "Picture", "Series", "Table", "bars", "beside", "histogram", "matrices", "points",
           "table"]
