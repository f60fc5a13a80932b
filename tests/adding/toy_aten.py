"""The first of the five: its row of the operator table."""

import torch

from fewbits.graph.operators import Operator

ROW = Operator("hypotenuse", "combine", (torch.ops.aten.hypot.default,), operands=("other",))
