"""What engines/exactness.py says of a program, held against ONNX Runtime on this processor."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from fewbits.engines.exactness import portable_nodes, reliance
from fewbits.engines.onnx_session import Level, OnnxSession
from fewbits.engines.processor import Target, this_processor
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.ops.pairs import add_codes, add_codes_unfused
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.report.engines import agreement
from fewbits.testing.saturation import probe
from fewbits.writers.onnx.program import OnnxForm, onnx_bytes, output_name

_SESSIONS: tuple[tuple[OnnxForm, Level], ...] = (("integer", "off"), ("integer", "all"), ("qdq", "all"))
"""The sessions that promise equality."""


@dataclass(frozen=True)
class ExactnessCheck:
    """exact: programs that must be exact here, plain or portable, in any form and session; compared, differing: codes
    and numbers of theirs; layers: that were fed the codes by which their pairs get farthest; wrong: those of them that
    must be wrong here, and are, number by number, as the NumPy model says; disputed: names of those where it, the
    reference or ONNX Runtime said otherwise."""

    exact: int
    compared: int
    differing: int
    layers: int
    wrong: int
    disputed: tuple[str, ...]


def check_exactness(program: Program, inputs: dict[str, np.ndarray]) -> ExactnessCheck:
    """Runs a program written portably, and plainly where that is predicted to be exact here, on some inputs; and each
    of its layers alone on the worst ones."""
    here, rests = this_processor(), reliance(program)
    targets: list[Target] = ["any"]
    if rests.nodes and not rests.wrong_on(here):
        targets.append("vnni")  # otherwise both are one
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    rows = [row for target in targets for row in agreement(program, [batch], every_value=True, processor=target)
            if row.exact]
    products = [node for node in program.everything if isinstance(node, op.Conv | op.Linear | op.DynamicLinear)]
    disputed, wrong = [], 0
    for node in products:
        made = probe(program, node.name)
        said = node.name in rests.pairs
        seen = made.in_pairs if here.adds_pairs_in_16_bits else made.exact
        agrees = said == made.differs and _gives(made.program, made.inputs, made.exact, seen)
        wrong += bool((seen != made.exact).any())
        disputed += [] if agrees else [node.name]
    sums = [node for node in program.everything if isinstance(node, op.Add) and _is_fused(program, node)]
    disputed += [node.name for node in sums if not _sum_agrees(program, node)]
    return ExactnessCheck(len(targets), sum(row.compared for row in rows), sum(row.differing for row in rows),
                          len(products) + len(sums), wrong, tuple(disputed))


def _gives(program: Program, inputs: dict[str, np.ndarray], exact: np.ndarray, plain: np.ndarray) -> bool:
    """Whether the reference and the portable form give the exact numbers, and the plain form what it must here."""
    output = program.outputs[0]
    right = np.array_equal(program.real(output, reference.run(program, inputs)[output]), exact)
    portable = portable_nodes(program, "any", this_processor())
    return right and _all_give(program, inputs, (), plain) and (
        np.array_equal(plain, exact) if not portable else _all_give(program, inputs, portable, exact))


def _all_give(program: Program, inputs: dict[str, np.ndarray], portable: Collection[str], expected: np.ndarray) -> bool:
    name = output_name(program.outputs[0])
    return all(np.array_equal(OnnxSession(onnx_bytes(program, form, portable=portable), level, 1).run(inputs)[name],
                              expected) for form, level in _SESSIONS)


def _is_fused(program: Program, node: op.Add) -> bool:
    return (program.profile.addition == "fma"
            and program.values[node.first].shape == program.values[node.second].shape)


def _sum_agrees(program: Program, node: op.Add) -> bool:
    """A sum of two tensors alone, on every two codes."""
    encodings = [program.encoding(name) for name in (node.first, node.second, node.name)]
    a, b = (np.arange(e.format.low, e.format.high + 1).astype(e.format.dtype) for e in encodings[:2])
    pairs = [array.reshape(1, -1) for array in np.broadcast_arrays(a[:, None], b[None, :])]
    shape = (None, pairs[0].size)
    made = Program(program.profile, ("a", "b"),
                   (op.Quantize("a.codes", "a"), op.Quantize("b.codes", "b"),
                    op.Add("y", "a.codes", "b.codes", node.low, node.high)),
                   {"a": Value(shape, None), "b": Value(shape, None), "a.codes": Value(shape, encodings[0]),
                    "b.codes": Value(shape, encodings[1]), "y": Value(shape, encodings[2])}, "y")
    inputs = {name: encoding.decode(codes) for name, encoding, codes in zip("ab", encodings, pairs, strict=False)}
    fused = encodings[2].decode(add_codes(program, node, *pairs))
    plain = fused if this_processor().fuses_additions else encodings[2].decode(
        add_codes_unfused(program, node, *pairs))
    return _gives(made, inputs, fused, plain)
