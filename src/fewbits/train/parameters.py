"""What is trained, in groups: weights, and the learned ranges that weight decay leaves alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from fewbits.quant.fake_quantize import FakeQuantize

Groups = Sequence[nn.Parameter | Mapping[str, Any]]
"""Parameters, or groups of them, as the optimizers of torch take them."""

RANGES = "ranges"


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """All trainable parameters of a network. The first group is its weights, and what methods have decayed with them
    (PACT's bound, §3.1 of its paper); a second holds the other learned ranges, which decay would shrink: its weight
    decay is 0, and under `learns` stands "ranges"."""
    apart = {id(parameter) for module in net.modules() if isinstance(module, FakeQuantize) and not module.decays
             for parameter in module.parameters(recurse=False)}
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if id(parameter) not in apart]
    ranges = [parameter for parameter in trained if id(parameter) in apart]
    groups: list[dict[str, Any]] = [{"params": weights}]
    return groups + ([{"params": ranges, "weight_decay": 0.0, "learns": RANGES}] if ranges else [])


def with_range_rate(groups: Groups, rate: float) -> list[Any]:
    """The groups, that of learned ranges with a learning rate of its own."""
    return [{**group, "lr": rate} if isinstance(group, Mapping) and group.get("learns") == RANGES else group
            for group in groups]
