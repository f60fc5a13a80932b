"""Ristretto's own search: three sweeps of widths in dynamic fixed point, each with all else in float.

Source: Gysel et al. 2018, Ristretto, and its tool (`ristretto quantize`): weights of convolutions, weights of fully
connected layers, and activations are narrowed 16, 8, 4, 2, 1; each keeps the last width whose score is within the
margin; the combination is scored once, and fine-tuning suggested.
"""

from dataclasses import dataclass

from fewbits.graph.model import Model
from fewbits.quant.recipe import SpecText
from fewbits.search.evaluations import Evaluations
from fewbits.search.limit import Limit
from fewbits.search.problem import Measured, Partial
from fewbits.search.space import Menu, Space

WIDTHS = (16, 8, 4, 2, 1)
FLOAT = 32


def ristretto_menu() -> Menu:
    """Dynamic fixed point of 16, 8, 4, 2 and 1 bits, rounded half away from zero as the tool does."""
    def text(bits: int, scale: str) -> SpecText:
        return SpecText.model_validate({"format": f"int{bits}", "symmetric": True, "block": "tensor", "scale": scale})

    return Menu(tuple(text(bits, "dynamic-weights") for bits in WIDTHS),
                tuple(text(bits, "dynamic-activations") for bits in WIDTHS))


@dataclass(frozen=True)
class Sweep:
    """kind: `convolutions`, `fully connected` or `activations`; scores: what each width does with all else in float;
    chosen: the last one within the limit, 32 where none is."""

    kind: str
    scores: tuple[tuple[int, Measured], ...]
    chosen: int


@dataclass(frozen=True)
class Found:
    """The three sweeps, the combination (None where a kind stays float), and what it does."""

    sweeps: tuple[Sweep, ...]
    assignment: Partial
    combined: Measured

    @property
    def suggestion(self) -> str:
        """What the tool prints."""
        widths = ", ".join(f"{sweep.kind} {sweep.chosen} bits" for sweep in self.sweeps)
        return f"{widths}. Please fine-tune."


def ristretto(evaluations: Evaluations, limit: Limit) -> Found:
    """The search over a problem whose menu is `ristretto_menu()`. Measures simulations: 16-bit activations have no
    program under every profile."""
    problem = evaluations.problem
    kinds = _kinds(problem.space)
    sweeps: list[Sweep] = []
    chosen: dict[int, int | None] = {}
    for kind, members in kinds.items():
        scores, width = [], FLOAT
        for number, bits in enumerate(WIDTHS):
            partial = tuple(number if at in members else None for at in range(len(problem.space.groups)))
            measured = evaluations.measured([partial], "simulated")[0]
            scores.append((bits, measured))
            if limit.excess(problem, measured) > 0:
                break
            width = bits
        sweeps.append(Sweep(kind, tuple(scores), width))
        chosen |= dict.fromkeys(members, WIDTHS.index(width) if width in WIDTHS else None)
    assignment = tuple(chosen[at] for at in range(len(problem.space.groups)))
    return Found(tuple(sweeps), assignment, evaluations.measured([assignment], "simulated")[0])


def _kinds(space: Space) -> dict[str, frozenset[int]]:
    """The groups of each sweep."""
    fully = _fully_connected(space.model)
    of = {at: ("activations" if group.kind != "weight" else
               "fully connected" if group.node in fully else "convolutions")
          for at, group in enumerate(space.groups)}
    return {kind: frozenset(at for at, each in of.items() if each == kind)
            for kind in ("convolutions", "fully connected", "activations") if kind in of.values()}


def _fully_connected(model: Model) -> set[str]:
    return {node.name for node in model.graph.nodes if node.operator is not None and node.operator.name == "linear"}
