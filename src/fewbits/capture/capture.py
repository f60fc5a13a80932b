"""From a user's module to a `Model`."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fewbits.capture.batch_sizes import check_other_sizes
from fewbits.capture.calls import Call, batch_axis, check_batch, running_example
from fewbits.capture.exporter import BatchSize, follow
from fewbits.capture.free_sizes import following
from fewbits.capture.plain_module import plain_module
from fewbits.capture.traced import plain, read_traced
from fewbits.errors import CaptureError, InputWarning
from fewbits.graph.graph import Style
from fewbits.graph.hiding import hiding_number
from fewbits.graph.model import Model, unfit_weight
from fewbits.numerics.finite import not_finite
from fewbits.options import options_checked

Example = torch.Tensor | tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


@options_checked
def capture(net: nn.Module, example: Example, batch: BatchSize = "any") -> Model:
    """The graph of `net`, in inference mode, with a batch of any size.

    net: left as it is; its weights are copied once; a `Model`, such as `read_pt2` gives, is a graph already and only
    checked. example: what the model takes (a tensor, a tuple of positional tensors or a dict of named ones), first axis
    the batch; a batch of 1 is taken twice, and a vector that the network takes without a batch axis gets one. batch:
    `fixed` for a network that takes batches of the example's size alone.
    The model's outputs on the example equal those of `net`, bit for bit (of attention without its fused inference
    kernel, which rounds in another order), and those on one input and on one more its own, nearly. Raises CaptureError
    for control flow that depends on data or on the batch size, an output that is no tensor, NaN or Inf in a weight, and
    whatever else the exporter cannot follow; it then names the submodules that can be captured on their own.
    """
    style, args, kwargs = split_example(example)
    if batch == "fixed":
        return capture_call(net, args, kwargs, style, batch)
    if all(tensor.ndim and len(tensor) == 1 for tensor in (*args, *kwargs.values())):
        args, kwargs = pytree.tree_map(lambda tensor: torch.cat([tensor, tensor]), (args, kwargs))
        try:
            return capture_call(net, args, kwargs, style)
        except CaptureError as error:
            raise CaptureError(f"{error} (the example, a batch of 1, was taken twice; batch=\"fixed\" keeps it as it "
                               "is)") from error
    if not (isinstance(example, torch.Tensor) and example.ndim == 1 and example.is_floating_point()):
        return capture_call(net, args, kwargs, style)
    try:
        return capture_call(net, args, kwargs, style)
    except CaptureError:
        if not _takes_rows(net, example):
            raise
    return capture_call(net, (torch.stack([example, example]),), {}, style)


@options_checked
def capture_call(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], style: Style = "tuple",
                 batch: BatchSize = "any") -> Model:
    """As `capture`, of a call whose tensors may stand in lists, tuples and dicts. The model takes them one by one, in
    that order; arguments that are no tensors keep the value they have here."""
    tensors = Call(args, kwargs).tensors
    for number, tensor in enumerate(tensors):
        if batch == "any":
            axis = batch_axis(tensor, tensors)
            if axis == 0:
                _check_batch_is_first(tensor, number, tensors)
            check_batch(tensor, axis)
    if not isinstance(net, nn.Module):
        raise CaptureError(f"the network is a {type(net).__name__}: give an nn.Module")
    net = plain_module(net).eval()
    if unfit := unfit_weight(net):
        raise CaptureError(unfit)
    for name, tensor in net.state_dict(keep_vars=True).items():
        if kind := not_finite(_without_masks(tensor)):
            raise CaptureError(f"weight {name!r} holds {kind}: load sound weights before quantizing")
    if isinstance(net, Model):
        _check_inputs(net, tensors)
    # Copies, because the model may write into what it is given.
    given, named = pytree.tree_map_only(torch.Tensor, torch.clone, (args, dict(kwargs)))
    with running_example(), torch.no_grad(), _without_fused_attention():
        expected = net(*given, **named)
    _warn_of_changes((args, dict(kwargs)), (given, named))
    model = net if isinstance(net, Model) else read_traced(follow(net, args, kwargs, batch), style)
    model.eval()
    if not isinstance(net, Model):
        model.graph = replace(model.graph, inputs=tuple(
            replace(item, hiding=hiding_number(tensor))
            for item, tensor in zip(model.graph.inputs, tensors, strict=True)))
    for node in model.graph.nodes:
        if node.target is torch.ops.aten.batch_norm.default and node["running_mean"] is None:
            raise CaptureError(f"batch norm {node.name!r} keeps no running statistics, so it has none to stand still "
                               "on: make it with track_running_stats=True")
    with torch.no_grad():
        actual = model(**kwargs) if style == "dict" else model(*tensors)
    _check_equal(plain(expected), actual)
    if not isinstance(net, Model) and batch == "any":
        with _without_fused_attention():
            check_other_sizes(net, model, args, kwargs)
            model.graph = replace(model.graph, follows=following(net, model, args, kwargs))
    return model


def _warn_of_changes(before: Any, after: Any) -> None:
    """An InputWarning where a network has written into a tensor that it was given: a program does not."""
    pairs = zip(pytree.tree_leaves(before), pytree.tree_leaves(after), strict=True)
    changed = [number for number, (one, other) in enumerate(pairs)
               if isinstance(one, torch.Tensor) and not torch.equal(one, other)]
    if changed:
        warnings.warn(InputWarning(
            f"the network changes its input {changed[0]} in place (a call such as x.mul_(2)): its program computes the "
            "same and leaves what it is given as it is, so give each a tensor of its own to compare them"),
            stacklevel=4)


def _takes_rows(net: nn.Module, vector: torch.Tensor) -> bool:
    """Whether a network gives for two rows what it gives for each vector alone: it takes vectors without a batch axis,
    and batches of them."""
    if not isinstance(net, nn.Module):
        return False
    try:
        with torch.no_grad():
            plain_net = plain_module(net).eval()
            alone, both = (pytree.tree_leaves(plain_net(x)) for x in (vector, torch.stack([vector, vector])))
    except Exception:  # of the user's own code: it does not take them
        return False
    return len(alone) == len(both) and all(
        isinstance(two, torch.Tensor) and torch.allclose(two, torch.stack([one, one])) for one, two in
        zip(alone, both, strict=True))


def _check_batch_is_first(tensor: torch.Tensor, number: int, tensors: list[torch.Tensor]) -> None:
    """Raises CaptureError for a tensor that has the batch of the others in another axis than its first."""
    batch = next((len(other) for other in tensors if other.ndim and len(other) > 1), None)
    if tensor.ndim > 1 and len(tensor) == 1 and batch in tensor.shape[1:]:
        raise CaptureError(f"input {number} of the example, {list(tensor.shape)}, has its batch ({batch}) in another "
                           "axis than the first: give it with the batch first and turn it in forward")


def _without_masks(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whose -inf are 0 where it is a mask: they hide places, and nothing is trained to them."""
    if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point() or not torch.isneginf(tensor).any():
        return tensor
    return torch.where(torch.isneginf(tensor), torch.zeros_like(tensor), tensor)


def _check_inputs(model: Model, tensors: list[torch.Tensor]) -> None:
    """Raises CaptureError for an example that is not of the shapes and types a graph was made for."""
    if len(tensors) != len(model.graph.inputs):
        raise CaptureError(f"the example holds {len(tensors)} tensors, and the graph takes {len(model.graph.inputs)}: "
                           f"{', '.join(item.name for item in model.graph.inputs)}")
    for item, tensor in zip(model.graph.inputs, tensors, strict=True):
        wanted = [size if known is None else known for known, size in zip(item.taken, tensor.shape, strict=False)]
        if list(tensor.shape) != wanted or tensor.ndim != len(item.shape) or str(tensor.dtype) != f"torch.{item.dtype}":
            raise CaptureError(f"input {item.name!r} of the example is {tensor.dtype} {list(tensor.shape)}, and the "
                               f"graph takes {item.dtype} {wanted}")


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """torch.nn's attention as it is captured: operator by operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def split_example(example: Example) -> tuple[Any, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    match example:
        case torch.Tensor():
            style, args, kwargs = "tensor", (example,), {}
        case tuple():
            style, args, kwargs = "tuple", example, {}
        case dict():
            style, args, kwargs = "dict", (), dict(example)
        case _:
            raise CaptureError(f"the example is a {type(example).__name__}: give a tensor, a tuple of tensors "
                               "or a dict of tensors, as the model takes them")
    for tensor in (*args, *kwargs.values()):
        if not isinstance(tensor, torch.Tensor):
            raise CaptureError(f"the example holds a {type(tensor).__name__}: every input must be a tensor")
    return style, args, kwargs


def _check_equal(expected: Any, actual: Any) -> None:
    wanted, spec = pytree.tree_flatten(expected)
    got, got_spec = pytree.tree_flatten(actual)
    same = spec == got_spec and all(a is b is None or torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    if not same:
        raise CaptureError("the captured graph gives other outputs than the model on the example: does the "
                           "model draw random numbers, or return NaN, when it is evaluated?")


