"""Training methods by the name that recipes write, and the Simulation that uses them."""

import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from fewbits.errors import MethodWarning, RecipeError
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.plan import Site
from fewbits.quant.simulation import Simulation
from fewbits.train.after_training import AfterTraining
from fewbits.train.binary_connect import BinaryConnect, StochasticBinaryConnect
from fewbits.train.bwn import BinaryWeights
from fewbits.train.codebook import CODEBOOK_STARTS, Codebook, RefreshedCodebook
from fewbits.train.dorefa import DoReFaActivations, DoReFaWeights
from fewbits.train.duq import (
    DualActivations,
    DualActivationsAsPublished,
    DualWeights,
    DualWeightsAsPublished,
)
from fewbits.train.hwgq import HalfWaveGaussian
from fewbits.train.inq import IncrementalPowers
from fewbits.train.lab_quantizer import FirstBatchRange
from fewbits.train.lognet import LogActivations
from fewbits.train.lq import LearnedBasisActivations, LearnedBasisWeights
from fewbits.train.lsq import LearnedStep, LearnedStepAndOffset, LearnedStepAsPublished
from fewbits.train.pact import ClippedActivation
from fewbits.train.qnn import LinearWeights
from fewbits.train.ranges import CurrentRange, MovingRange
from fewbits.train.stochastic import StochasticWeights
from fewbits.train.ttq import TrainedTernary
from fewbits.train.twn import Ternary70, Ternary75, TernaryExact

Make = Callable[..., FakeQuantize]

WEIGHTS: Mapping[str, Make] = MappingProxyType({
    "current": CurrentRange, "lsq": LearnedStep, "lsq-paper": LearnedStepAsPublished, "dorefa": DoReFaWeights,
    "binary-connect": BinaryConnect,
    "binary-connect-stochastic": StochasticBinaryConnect, "bwn": BinaryWeights, "twn": Ternary70, "twn-0.75": Ternary75,
    "twn-exact": TernaryExact, "ttq": TrainedTernary, "lab": partial(FirstBatchRange, range="document"),
    "codebook": Codebook, **{f"codebook-{start}": partial(Codebook, start=start) for start in CODEBOOK_STARTS},
    "codebook-refresh": RefreshedCodebook, "inq": IncrementalPowers, "qnn": LinearWeights,
    "stochastic": StochasticWeights, "duq": DualWeights, "duq-paper": DualWeightsAsPublished,
    "lq": LearnedBasisWeights,
})
"""Methods of weights: each makes the quantizer of a tensor; numbers in brackets are its arguments: `codebook(16)`."""

ACTIVATIONS: Mapping[str, Make] = MappingProxyType({
    "moving": MovingRange, "lsq": LearnedStep, "lsq-paper": LearnedStepAsPublished,
    "lsq-plus": LearnedStepAndOffset, "pact": ClippedActivation,
    "dorefa": DoReFaActivations, "lab": partial(FirstBatchRange, range="document"),
    "lab-efficient": partial(FirstBatchRange, range="efficient"), "after-training": AfterTraining,
    "log": LogActivations, "hwgq": HalfWaveGaussian, "hwgq-vanilla": partial(HalfWaveGaussian, backward="vanilla"),
    "duq": DualActivations, "duq-paper": DualActivationsAsPublished,
    "hwgq-log": partial(HalfWaveGaussian, backward="log"), "lq": LearnedBasisActivations,
})
"""Methods of activations; numbers in brackets are arguments: `moving(0.99, 1000)`, `dorefa(6)`."""

_SHOWN = 3  # tensors that a warning names
_TEXT = re.compile(r"([a-z0-9.-]+)(?:\(([^()]*)\))?")


def trainable(simulation: Simulation) -> Simulation:
    """A copy in which every tensor whose spec names a method is trained by it; the others keep the encodings that
    calibration found, with the straight-through estimator's gradient.

    The copy has parameters of its own. Warns (MethodWarning) of unsigned learned steps of tensors that calibration saw
    below 0: LSQ has code 0 for the number 0, and cuts off what lies below. Raises RecipeError, naming the tensor, for
    an unknown method, one of the other kind, or a recipe of repairs; EncodingError where a method does not take the
    tensor's format.
    """
    if simulation.plan.repairs:
        raise RecipeError(f"the recipe wants {', '.join(simulation.plan.repairs)}, and repairs are made when nothing "
                          "is trained: take a recipe without `repairs`")
    learning = simulation.to_repair()
    _warn_of_cut(simulation)
    for site in learning.plan.sites.values():
        if site.spec is not None and site.spec.method is not None:
            learning.replace_quantizer(quantizer_of(site))
    return learning


def _warn_of_cut(simulation: Simulation) -> None:
    cut = [name for name, site in simulation.plan.sites.items()
           if site.spec is not None and site.spec.method_name in ("lsq", "lsq-paper") and not site.spec.format.signed
           and bool(simulation.quantizer(name).zero_point.any())]
    if cut:
        named = ", ".join(map(repr, cut[:_SHOWN])) + (", …" if len(cut) > _SHOWN else "")
        warnings.warn(f"what reaches below 0 learns an unsigned step ({named}), which cuts off all that is negative; "
                      "give it a signed format such as int4, or method lsq-plus, which learns an offset",
                      MethodWarning, stacklevel=3)


def quantizer_of(site: Site) -> FakeQuantize:
    """A fresh quantizer by which a site learns. Raises as `trainable` does."""
    assert site.spec is not None and site.spec.method is not None, "asked for of sites with a method"
    method = site.spec.method
    known = WEIGHTS if site.kind in ("weight", "constant") else ACTIVATIONS
    match = _TEXT.fullmatch(method)
    if match is None or match[1] not in known:
        raise RecipeError(f"tensor {site.name!r} ({site.kind}) has no method {method!r}: choose one of "
                          f"{', '.join(known)}")
    try:
        numbers = [float(text) for text in match[2].split(",")] if match[2] else []
        return known[match[1]](site, *numbers)
    except (TypeError, ValueError):
        raise RecipeError(f"method {method!r} of tensor {site.name!r} does not take the arguments in its "
                          "brackets") from None
