"""Operators that move numbers, as ONNX: on codes in both forms."""

import numpy as np

from fewbits.program import ops as op
from fewbits.writers.onnx.builder import OnnxBuilder
from fewbits.writers.onnx.steps import FormTable, OnnxForms, reshape_to


def _reshape(b: OnnxBuilder, node: op.Reshape) -> None:
    reshape_to(b, node.input, node.shape, node.name)


def _transpose(b: OnnxBuilder, node: op.Transpose) -> None:
    b.node("Transpose", [node.input], node.name, perm=list(node.permutation))


def _slice(b: OnnxBuilder, node: op.Slice) -> None:
    arguments = [b.constant(f"{node.name}.{part}", np.array([value], np.int64)) for part, value in
                 (("start", node.start), ("stop", node.stop), ("axis", node.axis), ("step", node.step))]
    b.node("Slice", [node.input, *arguments], node.name)


def _margins(b: OnnxBuilder, node: op.Pad) -> tuple[str, list[str]]:
    """Pad's second input, and its fourth where ONNX Runtime must not merge it into what reads it: it makes one operator
    of Pad and AveragePool, and then refuses the model where that has margins as wide as its windows. It leaves alone a
    Pad that names its axes."""
    before, after = zip(*node.margins, strict=True)
    averaged = any("avg_pool" in reader.call if isinstance(reader, op.FloatCall) else isinstance(reader, op.AveragePool)
                   for reader in b.program.readers(node.name))
    return (b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64)),
            [b.constant(f"{node.name}.axes", np.arange(len(before)))] if averaged else [])


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    encoding = b.program.values[node.input].encoding
    zero = (np.zeros((), b.program.values[node.input].dtype) if encoding is None
            else encoding.zero_point.astype(encoding.format.dtype))
    margins, axes = _margins(b, node)
    b.node("Pad", [node.input, margins, b.constant(f"{node.name}.zero", zero), *(axes if encoding is None else [])],
           node.name)


def _gather(b: OnnxBuilder, node: op.Gather) -> None:
    indices = b.constant(f"{node.name}.indices", np.array(node.indices, np.int64))
    b.node("Gather", [node.input, indices], node.name, axis=node.axis)


def _twin_pad(b: OnnxBuilder, node: op.Pad) -> None:
    margins, axes = _margins(b, node)
    b.node("Pad", [node.input, margins, *(("", *axes) if axes else ())], node.name)


FORMS: FormTable = {
    op.Reshape: OnnxForms(_reshape, _reshape, _reshape),
    op.Transpose: OnnxForms(_transpose, _transpose, _transpose),
    op.Slice: OnnxForms(_slice, _slice, _slice),
    op.Pad: OnnxForms(_pad, _pad, _twin_pad),
    op.Gather: OnnxForms(_gather, _gather, _gather),
}
