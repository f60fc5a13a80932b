"""A network captured by parts: submodules become models, and what runs between them stays the user's Python."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fewbits.capture.calls import Call, calls, running_example
from fewbits.capture.capture import Example, capture_call, split_example
from fewbits.capture.evaluating import evaluating
from fewbits.errors import CaptureError, DataError
from fewbits.graph.model import Model


@dataclass(frozen=True, eq=False)
class Whole:
    """A network and those of its submodules that were captured.

    parts: a model for each, by the submodule's path, ready for fold, plan, calibrate and lower. It takes the tensors
    of the submodule's arguments one by one, in order. net: the user's own network, not a copy.
    """

    net: nn.Module
    parts: Mapping[str, Model]
    _calls: Mapping[str, Call]

    def batches(self, part: str, batches: Iterable[Any],
                batch_to_inputs: Callable[[Any], Any] | None = None) -> "PartBatches":
        """What a part is called with while the whole network runs on each of `batches`: for its calibration.

        batches: as for `calibrate`, of what the whole network takes. Raises CaptureError for no such part.
        """
        self._check(part)
        return PartBatches(self, part, batches, batch_to_inputs)

    def replaced(self, replacements: Mapping[str, Callable[..., Any]]) -> nn.Module:
        """The whole network with something else in the place of some of its parts: what was lowered, a simulation.

        It shares nothing with the user's network, and copies only what is not replaced. Raises CaptureError for no
        such part.
        """
        for part in replacements:
            self._check(part)
        known: dict[int, Any] = {id(self.net.get_submodule(part)): _StandIn(part, replacement, self._calls[part])
                                 for part, replacement in replacements.items()}
        return copy.deepcopy(self.net, known).eval()

    def _check(self, part: str) -> None:
        if part not in self.parts:
            raise CaptureError(f"no part is called {part!r}: choose among {', '.join(self.parts)}")


@dataclass(frozen=True, eq=False)
class PartBatches:
    """Re-iterable as often as the batches are; each pass runs the whole network again, in evaluation mode. A part that
    is called several times in a run gives as many batches."""

    whole: Whole
    part: str
    source: Iterable[Any]
    batch_to_inputs: Callable[[Any], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.source):
            args, kwargs = _arguments(batch if self.batch_to_inputs is None else self.batch_to_inputs(batch), number)
            with evaluating(self.whole.net):
                seen = calls(self.whole.net, [self.part], args, kwargs)[self.part]
            for call in seen:
                tensors = call.tensors
                yield tensors[0] if len(tensors) == 1 else tuple(tensors)


def capture_parts(net: nn.Module, example: Example, parts: Sequence[str]) -> Whole:
    """Captures submodules with what they are called with in one run of the whole network.

    net, example: as for `capture`; parts: paths of submodules, none inside another. Raises CaptureError for a path
    that is none, a part the run does not reach, one that is called in several ways, and as `capture` does.
    """
    _check_paths(net, parts)
    _, args, kwargs = split_example(example)
    with running_example(), evaluating(net):
        seen = calls(net, parts, args, kwargs)
    models = {part: _captured(net, part, seen[part]) for part in parts}
    return Whole(net, models, {part: seen[part][0] for part in parts})


def _captured(net: nn.Module, part: str, seen: list[Call]) -> Model:
    if not seen:
        raise CaptureError(f"part {part!r} is not called when the model runs on the example: name one that is")
    if len({call.signature for call in seen}) > 1:
        raise CaptureError(f"part {part!r} is called {len(seen)} times with arguments of different shapes or values: "
                           "name a part that is called in one way, such as the module that calls it")
    try:
        return capture_call(net.get_submodule(part), seen[0].args, seen[0].kwargs)
    except CaptureError as error:
        raise CaptureError(f"part {part!r}: {error}") from error


def _check_paths(net: nn.Module, parts: Sequence[str]) -> None:
    if isinstance(net, Model):
        raise CaptureError("this network is a graph already and has no submodules to call: give the module that was "
                           "exported")
    known = [name for name, _ in net.named_modules() if name]
    if isinstance(parts, str) or not parts:
        raise CaptureError("parts is a list of one or more paths of submodules, such as parts=[\"backbone\", \"head\"]")
    for part in parts:
        if part not in known:
            children = ", ".join(name for name, _ in net.named_children())
            raise CaptureError(f"the model has no submodule {part!r}: its own are {children or 'none'}")
        outer = next((other for other in parts if part.startswith(f"{other}.")), None)
        if outer is not None or list(parts).count(part) > 1:
            raise CaptureError(f"part {part!r} is captured with {outer or part!r} already: name each module once")


class _StandIn(nn.Module):
    """Called as the submodule was; calls its replacement with the tensors alone."""

    def __init__(self, part: str, replacement: Callable[..., Any], captured: Call):
        super().__init__()
        self.part, self.replacement, self.captured = part, replacement, captured.signature

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = Call(args, kwargs)
        if call.signature != self.captured:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in call.tensors)
            raise DataError(f"part {self.part!r} is called with {shapes or 'no tensors'}, other shapes or values than "
                            "it was captured with: capture it with an example of this size")
        return self.replacement(*call.tensors)


def _arguments(batch: Any, number: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    match batch:
        case torch.Tensor():
            return (batch,), {}
        case tuple() | list():
            return tuple(batch), {}
        case Mapping():
            return (), dict(batch)
    raise DataError(f"batch {number} is a {type(batch).__name__}: pass batch_to_inputs to turn it into tensors")
