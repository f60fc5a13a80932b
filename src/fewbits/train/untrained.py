"""Recipes whose methods learn, where nothing is trained: what is left of them, or a refusal that names the method.

Most methods are nothing without training: the grid that calibration finds at their formats is another quantization than
the one the recipe names. A codebook is something: the k-means of the weights as they are, where its training starts.
"""

import warnings

from fewbits.errors import MethodWarning, RecipeError
from fewbits.quant.plan import Plan
from fewbits.quant.simulation import Simulation
from fewbits.quant.spec import CALIBRATED_METHODS
from fewbits.train.codebook import CODEBOOK_STARTS
from fewbits.train.registry import quantizer_of

DATA_FREE = ("codebook", *(f"codebook-{start}" for start in CODEBOOK_STARTS), "codebook-refresh")
"""Methods of weights whose start needs no training, and gives the number of values that the recipe promises."""


def check_untrained(plan: Plan, recipe: object = "") -> None:
    """Raises RecipeError where a method of the plan is nothing without training. recipe: as the user called it."""
    for site in plan.sites.values():
        method = None if site.spec is None else site.spec.method_name
        if method is not None and method not in (*CALIBRATED_METHODS, *DATA_FREE):
            called = f"recipe {recipe}" if isinstance(recipe, str) and recipe else "the recipe"
            raise RecipeError(f"{called} has {site.name!r} learn by {method}, which needs training: use `fewbits "
                              "train`, or fb.trainable and fb.fit, or a recipe without methods, such as w4a8")


def untrained(simulation: Simulation) -> Simulation:
    """The simulation with those methods at their start whose start needs no training; a MethodWarning says which. The
    others keep what calibration found. Raises RecipeError as `check_untrained` does."""
    check_untrained(simulation.plan)
    sites = [site for site in simulation.plan.sites.values()
             if site.spec is not None and site.spec.method_name in DATA_FREE]
    if not sites:
        return simulation
    started = simulation.to_repair()
    for site in sites:
        started.replace_quantizer(quantizer_of(site))
        started.quantizer(site.name)(started.model.tensor(site.name))  # finds its values
    methods = ", ".join(dict.fromkeys(str(site.spec.method) for site in sites if site.spec is not None))
    warnings.warn(f"{methods} of {len(sites)} weights learns in training, and nothing is trained here: they get the "
                  "values that it starts from, the k-means of the weights as they are; `fewbits train` goes on from "
                  "there", MethodWarning, stacklevel=3)
    return started
