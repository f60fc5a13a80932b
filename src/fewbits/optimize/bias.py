"""Adds zero biases to layers without one, for repairs that change biases."""

from dataclasses import replace

import torch
from torch import nn

from fewbits.graph.graph import Param
from fewbits.graph.model import Model
from fewbits.quant.plan import Plan, Site


def give_biases(model: Model, plan: Plan) -> Plan:
    """Gives every layer of the model a bias (of zeros, where it had none); returns the plan with their tensors."""
    nodes, sites = [], dict(plan.sites)
    for node in model.graph.nodes:
        if node.role == "dot" and node["bias"] is None:
            weight = model.tensor(node["weight"].name)
            name = f"{node.name}.repaired_bias"
            model.set_tensor(name, nn.Parameter(torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)))
            arguments = dict(node.arguments) | {"bias": Param(name)}
            # ATen takes arguments by position up to the last one given.
            positional = max(node.positional, list(arguments).index("bias") + 1)
            node = replace(node, arguments=arguments, positional=positional)
            sites[f"{node.name}.bias"] = Site(f"{node.name}.bias", "bias", (weight.shape[0],), None,
                                              "given by a repair")
        nodes.append(node)
    model.graph = model.graph.with_nodes(tuple(nodes))
    return replace(plan, sites=sites)
