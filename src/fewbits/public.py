"""The public names of `fewbits`, brought together; `fewbits/__init__.py` gives them when the first one is used."""

import fewbits.plots as plots
from fewbits.api import (
    QuantizedModel,
    capture,
    compare_plans,
    evaluate,
    export_onnx,
    load,
    lower,
    quantize,
    report,
    search,
)
from fewbits.artifact.into_network import read_weights
from fewbits.data.normalize import Normalize
from fewbits.data.preparation import Preparation
from fewbits.data.sets import load as data_set
from fewbits.encodings.aimet import load_encodings, save_encodings
from fewbits.errors import FewbitsError
from fewbits.fold.fold import fold
from fewbits.fold.shortcuts import separate_shortcuts
from fewbits.numerics.encoding import Quantized
from fewbits.numerics.energy import costs_45nm as costs
from fewbits.numerics.fields import float_fields
from fewbits.numerics.fixed import Fixed
from fewbits.numerics.formats import parse
from fewbits.optimize.absorb import absorb_high_biases
from fewbits.optimize.adaround import Schedule as AdaRoundSchedule
from fewbits.optimize.adaround import adaround
from fewbits.optimize.batch_norm import reestimate_batch_norm
from fewbits.optimize.bias_correction import correct_biases, correct_biases_without_data
from fewbits.optimize.brecq import reconstruct_blocks
from fewbits.optimize.equalize import equalize
from fewbits.optimize.gptq import gptq
from fewbits.optimize.repairs import repair
from fewbits.optimize.rounding_study import rounding_study
from fewbits.optimize.sequential_mse import sequential_mse
from fewbits.optimize.smoothquant import smooth
from fewbits.program.program import Program
from fewbits.quant.cache import calibrate_cached
from fewbits.quant.calibrate import calibrate
from fewbits.quant.fake_quantize import round_pass
from fewbits.quant.plan import Plan
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe, recipe
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare
from fewbits.report.calibration_study import calibration_study
from fewbits.report.explain import explain
from fewbits.report.report import Report
from fewbits.reproduce.recorded import recorded
from fewbits.tensors.batch_norm import fold_batch_norm
from fewbits.tensors.huffman import huffman
from fewbits.tensors.layers import Quantizer, QuantLinear
from fewbits.tensors.linear import linear_quantize, scale_and_zero_point
from fewbits.tensors.number_formats import dynamic_fixed_point, minifloat
from fewbits.tensors.products import quantized_conv2d, quantized_linear
from fewbits.tensors.shared_values import Codebook, kmeans_quantize
from fewbits.tensors.thresholds import kl_threshold
from fewbits.train.after_training import calibrate_activations
from fewbits.train.distillation import Distillation
from fewbits.train.fit import Adam, Nesterov, WarmedCosine, fit
from fewbits.train.freeze import freeze_batch_norm
from fewbits.train.progressive import narrow
from fewbits.train.registry import trainable
from fewbits.train.shift_norm import WithShiftNorms
from fewbits.train.xnor import WithScalingMaps

__all__ = ["AdaRoundSchedule", "Adam", "Codebook", "Distillation", "FewbitsError", "Fixed", "Nesterov", "Normalize",
           "Plan", "Preparation", "Program", "QuantLinear", "Quantized", "QuantizedModel", "Quantizer", "Recipe",
           "Report", "Simulation", "WarmedCosine", "WithScalingMaps", "WithShiftNorms",
           "absorb_high_biases", "adaround", "calibrate",
           "calibrate_activations", "calibrate_cached", "calibration_study", "capture", "compare", "compare_plans",
           "correct_biases", "correct_biases_without_data", "costs", "data_set", "dynamic_fixed_point", "equalize",
           "evaluate", "explain", "export_onnx", "fit", "float_fields", "fold", "fold_batch_norm", "freeze_batch_norm",
           "gptq", "huffman", "kl_threshold", "kmeans_quantize", "linear_quantize", "load", "load_encodings", "lower",
           "minifloat", "narrow", "parse", "plan", "plots", "quantize", "quantized_conv2d", "quantized_linear",
           "read_weights", "recipe", "reconstruct_blocks", "recorded", "reestimate_batch_norm", "repair", "report",
           "round_pass", "rounding_study", "save_encodings", "scale_and_zero_point", "search", "separate_shortcuts",
           "sequential_mse", "smooth", "trainable"]
