"""Whether the state of an optimizer that a file holds is one that this optimizer could have."""

import copy
import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewbits.numerics.finite import not_finite

_MOVES = {"lr": math.inf, "momentum": 1.0, "betas": math.nextafter(1.0, 0.0)}
"""Of a group, what a schedule changes (OneCycleLR momentum, too), and what it stays at or below. Adam divides by
1 − β^t."""


def fits_optimizer(state: Mapping[str, Any], optimizer: Optimizer, steps: int) -> bool:
    """Whether a state, as `optimizer.state_dict()` gives it, is of this optimizer after at most so many steps: its
    groups with their settings, and for each parameter what the optimizer keeps of one, finite and in its shape."""
    own = optimizer.state_dict()["param_groups"]
    kept, groups = state.get("state"), state.get("param_groups")
    if state.keys() != {"state", "param_groups"} or not (isinstance(kept, dict) and isinstance(groups, list)
                                                        and len(groups) == len(own)):
        return False
    if not all(map(_same_settings, groups, own)):
        return False
    parameters = {number: (parameter, group) for group, mine in zip(optimizer.param_groups, own, strict=True)
                  for number, parameter in zip(mine["params"], group["params"], strict=True)}
    examples = {id(group): _example(optimizer, group) for group in optimizer.param_groups}
    return all(number in parameters and isinstance(values, dict)
               and _fits(values, parameters[number][0], examples[id(parameters[number][1])], steps)
               for number, values in kept.items())


def _same_settings(group: Any, mine: Mapping[str, Any]) -> bool:
    """What a schedule moves may differ, within its bounds; nothing else."""
    if not isinstance(group, dict) or group.keys() != mine.keys():
        return False
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in mine.items()}
    return all(_could_be(group[name], value, _MOVES[name]) if name in _MOVES
               else type(group[name]) is type(value) and group[name] == value for name, value in plain.items())


def _could_be(value: Any, mine: Any, most: float) -> bool:
    """Whether a number, or each of a list as long as ours, is finite and from 0 to `most`."""
    if isinstance(mine, list):
        return isinstance(value, list) and len(value) == len(mine) and all(_could_be(x, 0.0, most) for x in value)
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= most


def _example(optimizer: Optimizer, group: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the optimizer keeps of a parameter of one number, None where that cannot be told by one step of a copy."""
    trial, parameter = copy.copy(optimizer), torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    try:
        trial.state, trial.param_groups = defaultdict(dict), [{**group, "params": [parameter]}]
        trial._optimizer_step_pre_hooks, trial._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        type(trial).step(trial)
        return dict(trial.state[parameter])
    except Exception:  # an optimizer of the user's, which may want more than this
        return None


def _fits(values: Mapping[Any, Any], parameter: Tensor, example: Mapping[str, Any] | None, steps: int) -> bool:
    if example is not None and (values.keys() != example.keys() or any(
            type(value) is not type(example[name]) and None not in (value, example[name])
            for name, value in values.items())):
        return False
    for name, value in values.items():
        count = value if isinstance(value, int | float) else None
        if isinstance(value, Tensor):
            allowed = ((), parameter.shape) if example is None or not isinstance(example[name], Tensor) else (
                () if example[name].ndim == 0 else parameter.shape,)
            if value.shape not in allowed or not_finite(value):
                return False
            count = float(value) if value.ndim == 0 else None
        if name == "step" and count is not None and not 0 <= count <= steps:
            return False
    return True
