"""Recurrence: the body by itself, states handed on, and what no recurrence can be."""

from dataclasses import replace

import numpy as np
import pytest

from fewbits.errors import ProgramError
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program import reference
from fewbits.program.ops import Add, Carried, Entry, Linear, Mul, Quantize, Recurrence, Table
from fewbits.program.profile import profile
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.report.energy import integer_work
from fewbits.testing import differences

WIDTH = 3
X, H, SUM = (Encoding(parse("uint8"), scale, zero) for scale, zero in ((2**-6, 120), (2**-7, 128), (2**-5, 130)))
"""Powers of two and even zero points, so that all but rounding is exact, in whatever order it is done."""
RANDOM = np.random.default_rng(0)
WEIGHT = Quantized(RANDOM.integers(-127, 128, (WIDTH, WIDTH)),
                   Encoding(parse("int8"), np.array([[2**-7], [2**-8], [2**-8]]), 0, CHANNEL))
BIAS = RANDOM.integers(-2000, 2000, WIDTH).astype(np.int32)
TANH = H.encode(np.tanh(SUM.decode(np.arange(256, dtype=np.uint8)).astype(np.float64))).codes.reshape(1, -1)


def network(axis: int = 1, backwards: bool = False, first: bool = False) -> Program:
    """h ← tanh(x + W h + b) and c ← c · h + x over the steps of x, the last of both beside the outputs."""
    body = (Linear("before", "h", WEIGHT, BIAS, 0, 255), Add("sum", "now", "before", 0, 255),
            Table("after", "sum", TANH, "tanh"), Mul("kept", "c", "after", 0, 255), Add("grown", "kept", "now", 0, 255))
    states = (Carried("h", "after", "h0.codes" if first else None, "h.last"),
              Carried("c", "grown", "c0.codes" if first else None, "c.last"))
    sequence, row = ((None, 5, WIDTH) if axis else (5, None, WIDTH)), (None, WIDTH)
    values = {"x": Value(sequence, None), "x.codes": Value(sequence, X), "y": Value(sequence, H)}
    values |= {name: Value(row, encoding) for encoding, names in (
        (X, ("now",)), (H, ("h", "after", "h.last")), (SUM, ("before", "sum", "kept", "grown", "c", "c.last")))
        for name in names}
    inputs, nodes = ["x"], [Quantize("x.codes", "x")]
    if first:
        values |= {"h0": Value(row, None), "c0": Value(row, None)}
        values |= {"h0.codes": Value(row, H), "c0.codes": Value(row, SUM)}
        inputs += ["h0", "c0"]
        nodes += [Quantize("h0.codes", "h0"), Quantize("c0.codes", "c0")]
    nodes.append(Recurrence("y", (Entry("now", "x.codes"),), states, body, "after", axis, backwards))
    return Program(profile("onnxruntime"), tuple(inputs), tuple(nodes), values, ("y", "h.last", "c.last"))


def drawn(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 1, [4 if size is None else size for size in program.values[name].shape])
            .astype(np.float32) for name in program.inputs}


def by_hand(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The body written out: every value as the number it stands for, brought to its grid."""
    node = program.nodes[-1]

    def onto(numbers: np.ndarray, y: Encoding) -> np.ndarray:
        codes = (np.rint(numbers.astype(np.float64) / y.scale) + int(y.zero_point)).clip(0, 255)
        return (codes - int(y.zero_point)) * y.scale

    def codes(numbers: np.ndarray, y: Encoding) -> np.ndarray:
        return np.rint(numbers / y.scale) + int(y.zero_point)

    x = np.moveaxis(onto(inputs["x"], X), node.axis, 0)
    h = onto(inputs.get("h0", np.zeros(x.shape[1:])), H)
    c = onto(inputs.get("c0", np.zeros(x.shape[1:])), SUM)
    weight = WEIGHT.codes * WEIGHT.encoding.scale.astype(np.float64)
    bias = BIAS * H.scale * WEIGHT.encoding.scale.reshape(-1).astype(np.float64)
    made = []
    for now in x[::-1] if node.backwards else x:
        total = onto(now + onto(h @ weight.T + bias, SUM), SUM)
        h = onto(np.tanh(total), H)
        c = onto(onto(c * h, SUM) + now, SUM)
        made.append(h)
    stacked = np.stack(made[::-1] if node.backwards else made, node.axis)
    return {"y": codes(stacked, H), "h.last": codes(h, H), "c.last": codes(c, SUM)}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_engine_computes_the_body_step_by_step(axis, backwards, first) -> None:
    program = network(axis, backwards, first)
    inputs = drawn(program)
    got, wanted = reference.run(program, inputs), by_hand(program, inputs)
    for name in program.outputs:
        np.testing.assert_array_equal(got[name], wanted[name])
    assert not differences(program, inputs)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_sequence_in_two_pieces_is_the_sequence(backwards) -> None:
    """What streaming rests on: the last states of one piece, given as the first of the next."""
    whole = network(first=True, backwards=backwards)
    inputs = drawn(whole, 1)
    pieces = [inputs["x"][:, :2], inputs["x"][:, 2:]][::-1 if backwards else 1]
    wanted, outputs = reference.run(whole, inputs), []
    states = {name: inputs[name] for name in ("h0", "c0")}
    for piece in pieces:
        length = piece.shape[1]
        values = {name: replace(value, shape=(None, length, WIDTH)) if len(value.shape) == 3 else value
                  for name, value in whole.values.items()}
        got = reference.run(replace(whole, values=values), {"x": piece} | states)
        outputs.append(got["y"])
        states = {"h0": H.decode(got["h.last"]), "c0": SUM.decode(got["c.last"])}
    np.testing.assert_array_equal(np.concatenate(outputs[::-1 if backwards else 1], 1), wanted["y"])
    np.testing.assert_array_equal(H.encode(states["h0"]).codes, wanted["h.last"])


def with_node(program: Program, **changes) -> Program:
    *before, node = program.nodes
    return replace(program, nodes=(*before, replace(node, **changes)))


def test_what_is_no_recurrence_is_refused_by_name() -> None:
    program = network()
    node = program.nodes[-1]
    assert isinstance(node, Recurrence)
    with pytest.raises(ProgramError, match="one encoding"):
        with_node(program, states=(Carried("h", "grown", None, "h.last"), Carried("c", "grown", None, "c.last")))
    with pytest.raises(ProgramError, match=r"does not make 'x\.codes'"):
        with_node(program, output="x.codes")
    with pytest.raises(ProgramError, match="reads 'c', which nothing before it wrote"):
        with_node(program, states=node.states[:1])
    with pytest.raises(ProgramError, match="two values are called 'before'"):
        with_node(program, body=(*node.body[:1], *node.body))
    with pytest.raises(ProgramError, match="holds a recurrence"):
        replace(node, body=(node,))
    with pytest.raises(ProgramError, match="sequence to run over"):
        with_node(program, axis=2)


def test_its_work_is_that_of_its_body_at_every_step() -> None:
    program = network()
    counted = sum(work.operations.get("multiply int8", 0) for work in integer_work(program))
    assert counted == 5 * (WIDTH * WIDTH + WIDTH)
