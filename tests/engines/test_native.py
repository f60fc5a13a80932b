"""The native engine gives the reference's codes: every record's examples, random networks, any threads and sizes."""

import threading
import tracemalloc
import weakref
import zlib
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import pytest
import torch

from fewbits.engines.executable import Executable
from fewbits.engines.native import FORMS, few
from fewbits.engines.native.executor import NativeExecutor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import DataError, KernelError, ProgramError
from fewbits.kernels import library, structs
from fewbits.kernels.calls import Calls
from fewbits.kernels.conv import Layer
from fewbits.kernels.few_bits import Few, Planes
from fewbits.kernels.rescaling import Rescaling
from fewbits.numerics.block import CHANNEL
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import parse
from fewbits.program import reference
from fewbits.program.examples import as_program
from fewbits.program.ops import (
    RECORDS,
    Add,
    Choose,
    Constant,
    Conv,
    Embedding,
    ExactCall,
    FloatCall,
    LayerNorm,
    Linear,
    MaxPool,
    Pad,
    ProgramNode,
    Quantize,
    Recurrence,
    Reshape,
    Threshold,
)
from fewbits.program.profile import profile
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.testing.random_programs import random_program

NATIVE = library.levels()[1:]
pytestmark = pytest.mark.skipif(not NATIVE, reason="no native library: python -m fewbits.kernels.build")

IN_TORCH = {FloatCall: "float islands are torch's", ExactCall: "integers and truth values, a few of them",
            Choose: "a form of its own is still to come"}


def same(program: Program, wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """Equal codes, shapes and types; floats of islands are torch's."""
    assert wanted.keys() == found.keys()
    for name, codes in wanted.items():
        assert found[name].dtype == codes.dtype, name
        if program.has_islands and program.is_float(name):
            np.testing.assert_allclose(found[name], codes, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], codes, err_msg=name)


def test_every_operator_has_a_form_or_a_reason() -> None:
    assert set(FORMS) | set(IN_TORCH) == set(RECORDS)
    assert not set(FORMS) & set(IN_TORCH)


@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_examples_of_records(kind: type, level: library.Level) -> None:
    for number, example in enumerate(RECORDS[kind].examples()):
        program, inputs = as_program(example, seed=zlib.crc32(kind.__name__.encode()) + number)
        keep = tuple(node.name for node in program.nodes)
        with library.use(level):
            executor = NativeExecutor(program)
            same(program, reference.run(program, inputs, keep), executor.run(inputs, keep))
            same(program, reference.run(program, inputs), executor.run(inputs))


@pytest.mark.parametrize("level", NATIVE)
def test_a_recurrence_is_one_call(level: library.Level) -> None:
    """From either end, steps or batch first, states given or 0; other batches of one executor, threads."""
    for number, example in enumerate(RECORDS[Recurrence].examples()):
        program, inputs = as_program(example, seed=number)
        with library.use(level):
            executor = NativeExecutor(program, threads=1 + number)
            for _ in range(2):
                same(program, reference.run(program, inputs), executor.run(inputs))
            assert executor.fallbacks(inputs) == ()
            more = {name: np.concatenate([array] * 3, axis=program.values[name].taken.index(None))
                    for name, array in inputs.items()}
            same(program, reference.run(program, more), executor.run(more))


@pytest.mark.parametrize("seed", range(0, 40))
def test_random_networks(seed: int) -> None:
    made = random_program(seed)
    keep = tuple(node.name for node in made.program.nodes)
    wanted = TorchExecutor(made.program).run(made.inputs, keep)
    executor = NativeExecutor(made.program, threads=1 + seed % 3)
    same(made.program, wanted, executor.run(made.inputs, keep))
    outputs = {name: wanted[name] for name in made.program.outputs}
    same(made.program, outputs, executor.run(made.inputs))
    one = {name: array[:1] for name, array in made.inputs.items()}
    if not made.program.has_islands:
        same(made.program, TorchExecutor(made.program).run(one), executor.run(one))
        same(made.program, outputs, executor.run(made.inputs))  # the first size is still right


def test_threads_at_once() -> None:
    made = random_program(3)
    executor = NativeExecutor(made.program, threads=2)
    wanted, found = executor.run(made.inputs), []

    def run() -> None:
        for _ in range(20):
            found.append(executor.run(made.inputs))
            assert executor.arena(made.inputs).size > 0
            found.append(NativeExecutor(made.program).run(made.inputs))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 120
    for codes in found:
        same(made.program, wanted, codes)


def test_a_pad_is_the_margin_of_the_convolutions_that_read_it() -> None:
    rng = np.random.default_rng(0)
    codes, weight = Encoding(parse("int8"), 0.1, 5), Encoding(parse("int8"), 0.02)
    w = Quantized(rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), weight)
    conv = Conv("y", "p", w, None, (2, 2), ((1, 0), (0, 1)), (1, 1), 1, -128, 127)
    program = Program(profile("onnxruntime"), ("x",), (
        Quantize("q", "x"), Pad("p", "q", ((0, 0), (0, 0), (0, 1), (2, 0))), conv),
        {"x": Value((None, 3, 7, 8), None), "q": Value((None, 3, 7, 8), codes), "p": Value((None, 3, 8, 10), codes),
         "y": Value((None, 4, 4, 5), codes)}, "y")
    inputs = {"x": rng.normal(0, 5, (2, 3, 7, 8)).astype(np.float32)}
    executor = NativeExecutor(program)
    same(program, reference.run(program, inputs), executor.run(inputs))
    same(program, reference.run(program, inputs, ("p",)), executor.run(inputs, ("p",)))
    assert "p" not in executor.arena(inputs).offsets


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_large_layers_of_few_bits_read_their_bits(bits: int) -> None:
    rng = np.random.default_rng(bits)
    x, y = Encoding(parse("uint8"), 0.02, 7), Encoding(parse("uint8"), 20.0, 100)
    format = parse(f"int{bits}")
    codes = rng.integers(format.low, format.high + 1, (700, 800)).astype(np.int8)
    scale = rng.uniform(0.5, 1, (700, 1)).astype(np.float32)
    node = Linear("y", "q", Quantized(codes, Encoding(format, scale, block=CHANNEL)), None, 0, 255)
    program = Program(profile("onnxruntime"), ("x",), (Quantize("q", "x"), node), {
        "x": Value((None, 800), None), "q": Value((None, 800), x), "y": Value((None, 700), y)}, "y")
    executor = NativeExecutor(program)
    for rows in (1, 3, 9, 1):
        inputs = {"x": rng.uniform(0, 5, (rows, 800)).astype(np.float32)}
        same(program, reference.run(program, inputs), executor.run(inputs))
    held = executor._packed["y in few bits"]
    assert (held is None) == (bits == 8)
    if held is not None:
        assert held[1].nbytes < 1.2 * codes.size * bits / 8


def test_large_pruned_layers_read_what_is_left() -> None:
    rng = np.random.default_rng(8)
    x, y = Encoding(parse("uint8"), 0.02, 7), Encoding(parse("uint8"), 20.0, 100)
    codes = np.where(rng.random((700, 770)) < 0.08, rng.integers(-127, 128, (700, 770)), 0).astype(np.int8)
    scale = rng.uniform(0.5, 1, (700, 1)).astype(np.float32)
    node = Linear("y", "q", Quantized(codes, Encoding(parse("int8"), scale, block=CHANNEL)),
                  rng.integers(-99, 99, 700).astype(np.int32), 0, 255)
    program = Program(profile("onnxruntime"), ("x",), (Quantize("q", "x"), node), {
        "x": Value((None, 770), None), "q": Value((None, 770), x), "y": Value((None, 700), y)}, "y")
    for level in NATIVE:
        with library.use(level):
            executor = NativeExecutor(program)
            for rows in (1, 3, 9):
                inputs = {"x": rng.uniform(0, 5, (rows, 770)).astype(np.float32)}
                same(program, reference.run(program, inputs), executor.run(inputs))
            assert executor._packed["y pruned"] is not None


def large_layers(rng: np.random.Generator, convolutions: bool) -> Program:
    """Linear layers, or convolutions over maps that shrink, whose weights outweigh all else."""
    x, y = Encoding(parse("uint8"), 0.02, 7), Encoding(parse("uint8"), 20.0, 100)
    shapes = [(64, 28, 28), (128, 14, 14), (256, 7, 7), (512, 4, 4)] if convolutions else [(1024,), (2048,), (1024,)]
    nodes: list[ProgramNode] = [Quantize("q", "x")]
    values = {"x": Value((None, *shapes[0]), None), "q": Value((None, *shapes[0]), x)}
    for (ins, *_), shape in pairwise(shapes):
        name, source, kernel = f"of {shape}", nodes[-1].name, (3, 3) if convolutions else ()
        codes = rng.integers(-127, 128, (shape[0], ins, *kernel)).astype(np.int8)
        weight = Quantized(codes, Encoding(parse("int8"), 0.01))
        nodes.append(Conv(name, source, weight, None, (2, 2), ((1, 1), (1, 1)), (1, 1), 1, 0, 255) if convolutions
                     else Linear(name, source, weight, None, 0, 255))
        values[name] = Value((None, *shape), y)
    return Program(profile("onnxruntime"), ("x",), tuple(nodes), values, nodes[-1].name)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("level", NATIVE[1:])
def test_a_session_holds_its_packed_weights_and_its_arena(level: library.Level, convolutions: bool,
                                                          threads: int) -> None:
    """At most 1.3 times both: no view keeps the weights as they came, and what threads have for themselves is little.
    (NumPy tells tracemalloc what it allocates.)"""
    rng = np.random.default_rng(4)
    program = large_layers(rng, convolutions)
    inputs = {"x": rng.uniform(0, 5, (1, 64, 28, 28) if convolutions else (1, 1024)).astype(np.float32)}
    with library.use(level):
        NativeExecutor(program, threads).run(inputs)  # what is imported and cached on the way is not the session's
        tracemalloc.start()
        try:
            executor = NativeExecutor(program, threads)
            executor.run(inputs)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        packed = sum(blob.nbytes for blob in executor._packed.values() if isinstance(blob, np.ndarray))
        assert packed > 1_500_000
        assert held <= 1.3 * (packed + executor.arena(inputs).size)


def few_numbers(rng: np.random.Generator, levels: tuple[int, ...], zero: int, weights: tuple[int, ...]) -> Program:
    """Two convolutions of few numbers behind each other and a linear layer, compared with thresholds."""
    few, sums = Encoding(parse("uint8"), 1.0, zero), Encoding(parse("int32"), 1.0)

    def weight(*shape: int) -> Quantized:
        return Quantized(rng.choice(weights, shape).astype(np.int8), Encoding(parse("int8"), 1.0))

    def compared(name: str, source: str, rows: int, axis: int) -> Threshold:
        some = np.sort(rng.integers(-40, 40, (rows, len(levels) - 1)), 1).astype(np.int32)
        direction = rng.choice([-1, 1], rows).astype(np.int8)
        return Threshold(name, source, some, direction, np.array(levels, np.uint8), axis)

    around = ((1, 1), (2, 0))
    nodes = (Quantize("q", "x"),
             Conv("a.sums", "q", weight(24, 3, 3, 3), None, (1, 1), around, (1, 1), 1, -2**31, 2**31 - 1),
             compared("a", "a.sums", 24, 1), MaxPool("p", "a", (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
             Conv("b.sums", "p", weight(33, 24, 3, 3), rng.integers(-9, 9, 33).astype(np.int32), (1, 2), around, (1, 1),
                  1, -2**31, 2**31 - 1),
             compared("b", "b.sums", 33, 1), Reshape("r", "b", (-1, 33 * 5 * 3)),
             Linear("c.sums", "r", weight(19, 495), None, -2**31, 2**31 - 1), compared("c", "c.sums", 1, 1),
             Linear("y", "c", weight(7, 19), None, -2**31, 2**31 - 1))
    shapes = {"a": (24, 10, 10), "b": (33, 5, 3), "c": (19,)}
    values = {"x": Value((None, 3, 10, 10), None), "q": Value((None, 3, 10, 10), Encoding(parse("uint8"), 0.1, 9)),
              "p": Value((None, 24, 5, 5), few), "r": Value((None, 495), few), "y": Value((None, 7), sums)}
    for name, shape in shapes.items():
        values |= {name: Value((None, *shape), few), f"{name}.sums": Value((None, *shape), sums)}
    return Program(profile("onnxruntime"), ("x",), nodes, values, "y")


@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize(("levels", "zero", "weights"), [
    ((0, 2), 1, (-1, 1)), ((0, 1), 0, (-1, 1)), ((0, 1, 2, 3), 0, (-1, 1)), ((0, 1, 2), 1, (-1, 0, 1)),
    ((0, 1, 2, 3), 2, (-2, 0)), ((3, 7), 3, (-5, 9)), ((0, 1, 5), 1, (-1, 0, 1))], ids=str)
def test_layers_of_few_numbers(levels: tuple[int, ...], zero: int, weights: tuple[int, ...],
                               level: library.Level) -> None:
    rng = np.random.default_rng(len(levels) * 100 + zero)
    program = few_numbers(rng, levels, zero, weights)
    inputs = {"x": rng.normal(0, 5, (3, 3, 10, 10)).astype(np.float32)}
    keep = tuple(node.name for node in program.nodes)
    with library.use(level):
        executor = NativeExecutor(program)
        wanted = reference.run(program, inputs, keep)
        same(program, {"y": wanted["y"]}, executor.run(inputs))
        assert "a.sums" not in executor.arena(inputs).offsets, "thresholds belong to the layer in front of them"
        same(program, wanted, executor.run(inputs, keep))
        planes = executor._packed["c.sums in planes"]
        pairs = planes[0].weights.bits * planes[0].codes.bits if planes else 0
    if level == "avx512":
        assert pairs == (0 if 5 in levels else (1 if len(levels) == 2 else 2) * (1 if len(weights) == 2 else 2))


@pytest.mark.parametrize("level", NATIVE)
@pytest.mark.parametrize("faster", [True, False])
def test_layers_of_few_numbers_whatever_is_measured(faster: bool, level: library.Level,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "_SURE", 1e9)  # every layer is tried
    monkeypatch.setattr(few, "_are_faster", lambda *given: faster)
    rng = np.random.default_rng(4)
    program = few_numbers(rng, (0, 1, 2, 3), 0, (-1, 0, 1))
    inputs = {"x": rng.normal(0, 5, (2, 3, 10, 10)).astype(np.float32)}
    with library.use(level):
        executor = NativeExecutor(program)
        same(program, reference.run(program, inputs), executor.run(inputs))
        assert (executor._packed["c.sums in planes"] is not None) == faster


@pytest.mark.parametrize("faster", [True, False])
def test_planes_are_timed_beside_products_of_eight_bits(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both run over one image; the smaller of their least times wins, whatever single runs took."""
    rng = np.random.default_rng(5)
    layer = Layer(np.where(rng.random((64, 3, 3, 64)) < 0.5, -1, 1).astype(np.int8), None,
                  Rescaling(structs.SUMS, structs.S32), 1, margins=(1, 1, 1, 1))
    planes = Planes((layer.weights > 0).astype(np.uint8), Few(1, -1, 2), Few(1, -1, 2), None, layer.rescaling,
                    margins=(1, 1, 1, 1))
    told = iter([(9.0, 2.0), (1.0, 8.0), (7.0, 7.0), (3.0, 2.0)])
    batches, turn = [], []

    def taken(calls: Calls) -> float:
        calls.run()
        call, = calls._calls
        batches.append(call.batch)
        if not turn:
            turn.extend(next(told))
        by_planes, by_eight = (turn[0], turn[1]) if faster else (turn[1], turn[0])
        if len(batches) % 2 == 0:
            turn.clear()
        return by_planes if isinstance(call, structs.Binary) else by_eight

    monkeypatch.setattr(few, "_time", taken)
    assert few._are_faster(planes, planes.packed(), layer, (5, 12, 12, 64), 100) == faster
    assert batches == [1] * 8


def test_a_constant_that_is_added_broadcasts_whatever_the_batch() -> None:
    """One image has the constant's shape, and its sums are those that it has among others (eq. 7, float)."""
    rng = np.random.default_rng(0)
    a, b, y = (Encoding(parse("uint8"), scale, zero) for scale, zero in ((0.02, 3), (0.02, 128), (0.04, 77)))
    data = Quantized(rng.integers(0, 256, (1, 50, 60)).astype(np.uint8), b)
    program = Program(profile("onnxruntime"), ("x",), (Quantize("q", "x"), Constant("c", data), Add("y", "q", "c", 0,
                                                                                                    255)), {
        "x": Value((None, 50, 60), None), "q": Value((None, 50, 60), a), "c": Value((1, 50, 60), b),
        "y": Value((None, 50, 60), y)}, "y")
    two = {"x": rng.uniform(0, 5, (2, 50, 60)).astype(np.float32)}
    wanted = reference.run(program, two)
    for executor in (NativeExecutor(program), TorchExecutor(program)):
        same(program, wanted, executor.run(two))
    for image in range(2):
        one, alone = {"x": two["x"][image:image + 1]}, {"y": wanted["y"][image:image + 1]}
        same(program, alone, reference.run(program, one))
        for executor in (NativeExecutor(program), TorchExecutor(program)):
            same(program, alone, executor.run(one))


def test_a_large_input_is_read_where_it_lies_or_copied() -> None:
    """Contiguous or not, aligned or not, of another type, another array each time; it is not written to."""
    rng = np.random.default_rng(8)
    encoding = Encoding(parse("uint8"), 0.02, 100)
    values = {"x": Value((None, 3, 80, 90), None), "q": Value((None, 3, 80, 90), encoding),
              "y": Value((None, 3, 40, 45), encoding)}
    pool = MaxPool("y", "q", (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1))
    program = Program(profile("onnxruntime"), ("x",), (Quantize("q", "x"), pool), values, "y")
    executor = NativeExecutor(program, 2)
    plain = rng.normal(size=(2, 3, 80, 90)).astype(np.float32)
    raw = np.empty(plain.nbytes + 1, np.uint8)
    shifted = raw[1:].view(np.float32).reshape(plain.shape)
    shifted[...] = -plain
    turned = np.ascontiguousarray(2 * plain.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for x in (plain, shifted, plain + 1, turned, plain * 3):
        before = x.copy()
        for _ in range(2):
            wanted = reference.run(program, {"x": x})
            same(program, wanted, executor.run({"x": x}))
            real = executor.real({"x": x})["y"]
            np.testing.assert_array_equal(real, program.real("y", wanted["y"]))
        np.testing.assert_array_equal(x, before)

    class Made(Mapping[str, np.ndarray]):
        """Makes an array each time it is asked, as NpzFile does; what nobody holds any longer is overwritten."""

        def __getitem__(self, name: str) -> np.ndarray:
            kept.append(plain.copy())
            given = kept[-1].view()
            weakref.finalize(given, kept[-1].fill, 99)
            return given

        def __iter__(self) -> Iterator[str]:
            return iter(("x",))

        def __len__(self) -> int:
            return 1

    kept: list[np.ndarray] = []
    wanted = reference.run(program, {"x": plain})
    for _ in range(2):
        same(program, wanted, executor.run(Made()))
        np.testing.assert_array_equal(executor.real(Made())["y"], program.real("y", wanted["y"]))
    lists = [list(image) for image in plain]  # no array, as a caller without types may give: copied, not read in place
    same(program, wanted, executor.run({"x": lists}))  # type: ignore[dict-item]


def test_layer_norms_are_exact_in_torch_too() -> None:
    """Deviations of all pairs of codes: a square root that is off by its last bit moves some of them by a step."""
    example = RECORDS[LayerNorm].examples()[0]
    x, y = Encoding(parse("uint8"), 0.05, 0), Encoding(parse("uint8"), 0.0078431, 128)
    node = LayerNorm("y", "q", np.array([1.1, 0.9], np.float32), np.array([0.03, -0.02], np.float32), 1e-5, 0, 255)
    program = Program(profile(example.profile), ("x",), (Quantize("q", "x"), node),
                      {"x": Value((None, 2), None), "q": Value((None, 2), x), "y": Value((None, 2), y)}, "y")
    grid = np.stack(np.meshgrid(np.arange(256), np.arange(256)), -1).reshape(-1, 2)
    inputs = {"x": x.decode(grid.astype(np.uint8))}
    wanted = reference.run(program, inputs)
    same(program, wanted, TorchExecutor(program).run(inputs))
    same(program, wanted, NativeExecutor(program).run(inputs))


def test_what_cannot_be_run_is_said_in_words() -> None:
    example = RECORDS[Embedding].examples()[0]
    program, inputs = as_program(example)
    name = program.inputs[0]
    with pytest.raises(ProgramError, match="has rows 0 to"):
        NativeExecutor(program).run({name: inputs[name] + 10**6})
    with pytest.raises(ProgramError, match="is missing"):
        NativeExecutor(program).run({})
    made = random_program(0)
    executable = Executable(made.program, engine="native")
    with pytest.raises(DataError):
        executable(torch.zeros(2, 99))


def test_without_a_library_it_says_how_to_make_one() -> None:
    with library.use("numpy"), pytest.raises(KernelError, match=r"fewbits\.kernels\.build"):
        NativeExecutor(random_program(0).program)


def test_called_like_the_model() -> None:
    made = random_program(1)
    x = torch.from_numpy(made.inputs[made.program.inputs[0]])
    for one, other in zip(torch.utils._pytree.tree_leaves(Executable(made.program, engine="native")(x)),
                          torch.utils._pytree.tree_leaves(Executable(made.program, engine="torch")(x)), strict=True):
        assert torch.equal(one, other)
