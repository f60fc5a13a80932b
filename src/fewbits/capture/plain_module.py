"""A copy of the user's module without what wraps it: compilation, masks of pruning, weight and spectral norm."""

import copy

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fewbits.capture.quantized_elsewhere import quantized_elsewhere
from fewbits.errors import CaptureError


def plain_module(net: nn.Module) -> nn.Module:
    """A deep copy in which weights are plain parameters.

    A network of torch.compile is the one that was compiled; what `prune` masked, and what the older weight_norm and
    spectral_norm compute in a hook before each call, is the weight it comes to. Raises CaptureError for scripted or
    traced modules, lazy ones that have no weights yet, and what another tool has quantized.
    """
    net = copy.deepcopy(_uncompiled(net), _computed_by_hooks(net))
    for name, module in list(net.named_modules()):
        for child, inner in list(module.named_children()):
            if (plain := _uncompiled(inner)) is not inner:
                setattr(module, child, plain)
        _check(name, module)
        _bake(module)
    return net


def _computed_by_hooks(net: nn.Module) -> dict[int, torch.Tensor]:
    """What deepcopy takes for weights that a hook computes before each call: such tensors it cannot copy."""
    return {id(value): value.detach().clone() for module in net.modules() for value in vars(module).values()
            if isinstance(value, torch.Tensor) and value.grad_fn is not None}


def _uncompiled(net: nn.Module) -> nn.Module:
    inner = net._modules.get("_orig_mod") if type(net).__name__ == "OptimizedModule" else None
    return net if inner is None else inner


def _check(name: str, module: nn.Module) -> None:
    what = f"its submodule {name!r}" if name else "it"
    if isinstance(module, torch.jit.ScriptModule):
        raise CaptureError(f"the network cannot be captured: {what} is a torch.jit module, which hides its Python; "
                           "give the nn.Module that was scripted or traced, with its weights loaded by load_state_dict")
    if how := quantized_elsewhere(module):
        raise CaptureError(f"the network cannot be captured: {what} {how}, and quantizing begins with floats; give the "
                           "float network from before, with its weights")
    tensors = (*module._parameters.values(), *module._buffers.values())
    if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
        raise CaptureError(f"the network cannot be captured: {what} is lazy and has no weights yet; call the network "
                           "once on an input, then train it or load its weights")


def _bake(module: nn.Module) -> None:
    """Replaces what hooks compute before each call by the weight it is."""
    with torch.no_grad():
        for hook in list(module._forward_pre_hooks.values()):
            match hook:
                case WeightNorm():
                    remove_weight_norm(module, hook.name)
                case SpectralNorm():
                    remove_spectral_norm(module, hook.name)
                case prune.BasePruningMethod():
                    prune.remove(module, hook._tensor_name)
