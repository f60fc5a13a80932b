"""From a Simulation to a Program under a profile, with its accumulators proved wide enough."""

from dataclasses import replace
from functools import partial

from fewbits.errors import LoweringError
from fewbits.graph.graph import Node
from fewbits.graph.model import unfit_weight
from fewbits.lower.context import Context
from fewbits.lower.dynamic import dynamic_dot
from fewbits.lower.exact import dtype_of, exact_call
from fewbits.lower.inputs import read_input
from fewbits.lower.islands import float_call
from fewbits.lower.recurrence import recurrence
from fewbits.lower.rules import RULES
from fewbits.program.limits import check_limits
from fewbits.program.profile import Profile
from fewbits.program.profile import profile as profile_of
from fewbits.program.program import Program, fill, leaves
from fewbits.program.value import Value
from fewbits.program.widths import check_sums
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.plan import Treatment
from fewbits.quant.simulation import Simulation
from fewbits.quant.spec import CALIBRATED_METHODS


def lower(simulation: Simulation, profile: str | Profile = "onnxruntime") -> Program:
    """The integer program that the simulation stands for, with what the recipe leaves in float as float islands.

    profile: whose integers to compute, by name or as a value; the simulation rounds as it does from now on
    (`Simulation.follow`). Raises LoweringError, naming the layer, for
    codes the profile does not take, a bias that does not fit, sums that need more bits than the
    accumulator has, or repairs and methods that the recipe wants and that were not made.
    """
    _check_done(simulation)
    if unfit := unfit_weight(simulation.model):
        raise LoweringError(unfit)
    chosen = profile_of(profile) if isinstance(profile, str) else profile
    simulation.follow(chosen)
    context = Context(simulation, chosen)
    graph = simulation.model.graph
    for item in graph.inputs:
        context.values[item.name] = Value(item.shape, None, dtype_of(item.dtype), item.free)
        context.names[item.name] = item.name
        if item.name in simulation.plan.sites:
            read_input(context, item.name, item.shape)
    for node in graph.nodes:
        if node.body is None:
            _lower(context, node)
        else:
            recurrence(context, node, node.body, partial(_lower, context))
    for item in (*graph.inputs, *graph.nodes):
        name = context.names.get(item.name)
        if item.free and name is not None:
            context.values[name] = replace(context.values[name], free=item.free)
    structure = fill(graph.structure, {name: context.names[name] for name in leaves(graph.structure)})
    program = Program(chosen, tuple(item.name for item in graph.inputs), tuple(context.nodes), context.values,
                      structure)
    check_limits(program)
    check_sums(program)
    return program


def _lower(context: Context, node: Node) -> None:
    match context.simulation.plan.steps[node.name].treatment:
        case Treatment.FLOAT if node.role != "pass":
            float_call(context, node)
        case Treatment.EXACT if node.role != "pass" and (node.role != "gone" or node.op == "cast"):
            exact_call(context, node)
        case Treatment.DYNAMIC:
            dynamic_dot(context, node)
        case _:
            RULES[node.op](context, node)


def _check_done(simulation: Simulation) -> None:
    """Raises LoweringError where the simulation is not yet what its recipe says; CalibrationError where its model is no
    longer the one that was planned."""
    simulation.check_unfolded()
    if simulation.plan.repairs:
        raise LoweringError(f"the recipe wants {', '.join(simulation.plan.repairs)}, which was not made: call "
                            "fb.repair(sim, batches) first, or plan by a recipe without repairs")
    for quantizer in simulation.quantizers():
        method = quantizer.spec.method_name
        if type(quantizer) is FakeQuantize and method is not None and method not in CALIBRATED_METHODS:
            raise LoweringError(f"the recipe has {quantizer.site!r} learn by {method}, and it has not: call "
                                "fb.trainable(sim) and fb.fit first, or plan by a recipe without methods")
