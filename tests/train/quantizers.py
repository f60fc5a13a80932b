"""Quantizers of one site, made by name."""


from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import parse
from fewbits.quant.plan import Site
from fewbits.quant.spec import Spec
from fewbits.train.registry import ACTIVATIONS, WEIGHTS


def weight_quantizer(method, format, weight, per_channel=False, symmetric=True):
    block = CHANNEL if per_channel else TENSOR
    made = WEIGHTS[method](Site("w", "weight", tuple(weight.shape), Spec(parse(format), symmetric, block), "test"))
    return ready(made)


def activation_quantizer(method, format, *numbers):
    spec = Spec(parse(format), symmetric=False, block=TENSOR)
    return ready(ACTIVATIONS[method](Site("x", "activation", (None, 4), spec, "test"), *numbers))


def ready(quantizer):
    quantizer.mode = "simulate"
    quantizer.train()
    return quantizer


def gradient(call, x, upstream=1.0):
    """Result and gradient of `call` at x for a constant gradient from above."""
    x = x.detach().clone().requires_grad_()
    y = call(x)
    (y * upstream).sum().backward()
    return y.detach(), x.grad
