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


def _pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    encoding = b.program.values[node.input].encoding
    zero = (np.zeros((), b.program.values[node.input].dtype) if encoding is None
            else encoding.zero_point.astype(encoding.format.dtype))
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64)),
                   b.constant(f"{node.name}.zero", zero)], node.name)


def _gather(b: OnnxBuilder, node: op.Gather) -> None:
    indices = b.constant(f"{node.name}.indices", np.array(node.indices, np.int64))
    b.node("Gather", [node.input, indices], node.name, axis=node.axis)


def _twin_pad(b: OnnxBuilder, node: op.Pad) -> None:
    before, after = zip(*node.margins, strict=True)
    b.node("Pad", [node.input, b.constant(f"{node.name}.margins", np.array([*before, *after], np.int64))],
           node.name)


FORMS: FormTable = {
    op.Reshape: OnnxForms(_reshape, _reshape, _reshape),
    op.Transpose: OnnxForms(_transpose, _transpose, _transpose),
    op.Slice: OnnxForms(_slice, _slice, _slice),
    op.Pad: OnnxForms(_pad, _pad, _twin_pad),
    op.Gather: OnnxForms(_gather, _gather, _gather),
}
