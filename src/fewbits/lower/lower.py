"""From a Simulation to a Program under a profile, with its accumulators proved wide enough."""

from fewbits.errors import LoweringError
from fewbits.graph.operators import operator_of
from fewbits.lower.context import Context
from fewbits.lower.inputs import read_input
from fewbits.lower.rules import RULES
from fewbits.program.limits import check_limits
from fewbits.program.profile import Profile
from fewbits.program.profile import profile as profile_of
from fewbits.program.program import Program, Value, fill, leaves
from fewbits.program.widths import check_sums
from fewbits.quant.simulation import Simulation


def _refuse_floats(simulation: Simulation) -> None:
    """Raises LoweringError for nodes and outputs that the recipe leaves in float."""
    plan, graph = simulation.plan, simulation.model.graph
    kept = [step.node for step in plan.steps.values() if step.treatment == "float"]
    kept += [name for name in leaves(graph.structure)
             if plan.grid(name) not in plan.sites and name not in kept]
    if kept:
        raise LoweringError(f"{', '.join(map(repr, kept[:3]))}{f' and {len(kept) - 3} more' if kept[3:] else ''}: the "
                            "recipe leaves them in float, and integer programs have no float nodes yet; give their "
                            "weights and activations a format, or stay with the Simulation")


def lower(simulation: Simulation, profile: str | Profile = "onnxruntime") -> Program:
    """The integer program that the simulation stands for.

    profile: whose integers to compute, by name or as a value. Raises LoweringError, naming the layer, for
    codes the profile does not take, a bias that does not fit, or sums that need more bits than the
    accumulator has.
    """
    chosen = profile_of(profile) if isinstance(profile, str) else profile
    _refuse_floats(simulation)
    context = Context(simulation, chosen)
    graph = simulation.model.graph
    for item in graph.inputs:
        context.values[item.name] = Value(item.shape, None, "int64" if item.dtype == "int64" else "float32")
        if item.name in simulation.plan.sites:
            read_input(context, item.name, item.shape)
    for node in graph.nodes:
        row = operator_of(node)
        assert row is not None, "the plan refused unknown operators"
        RULES[row.name](context, node)
    structure = fill(graph.structure, {name: context.names[name] for name in leaves(graph.structure)})
    program = Program(chosen, tuple(item.name for item in graph.inputs), tuple(context.nodes), context.values,
                      structure)
    check_limits(program)
    check_sums(program)
    return program


