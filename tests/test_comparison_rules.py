"""What is accepted and what is refused where engines are compared: before a file is exported, where a saved one is
replayed, and where the report counts.

The programs are right; ONNX Runtime's results, or torch's, are changed in flight.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fewbits.artifact.file import from_bytes, to_bytes
from fewbits.artifact.vectors import Vectors
from fewbits.artifact.verify import verify
from fewbits.engines.onnx_session import OnnxSession
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.errors import VerificationError
from fewbits.export.verified import export_onnx
from fewbits.numerics.block import CHANNEL, Block
from fewbits.numerics.encoding import Encoding, Quantized
from fewbits.numerics.formats import ACCUMULATOR, parse
from fewbits.program import ops as op
from fewbits.program import reference
from fewbits.program.float_calls import TOLERANCE
from fewbits.program.profile import ONNXRUNTIME
from fewbits.program.program import Program
from fewbits.program.requantize import accumulator_scale
from fewbits.program.value import Value
from fewbits.report.engines import agreement

X, Y = Encoding(parse("uint8"), 0.02, 128), Encoding(parse("uint8"), 0.5, 100)
NARROW = Encoding(parse("uint8"), 1 / 128, 128)
BATCH = torch.tensor([[0.5, -1.0, 0.25, 2.0], [1.5, 0.75, -0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
WHOLE = (-(2**31), 2**31 - 1)


def weight(shape: tuple[int, int], seed: int) -> Quantized:
    random = np.random.default_rng(seed)
    scale = random.uniform(0.01, 0.02, CHANNEL.scale_shape(shape))
    return Quantized(random.integers(-60, 61, shape), Encoding(parse("int8"), scale, 0, CHANNEL))


def sums(x: Encoding, w: Quantized) -> Encoding:
    scale = accumulator_scale(x, w.encoding)
    return Encoding(ACCUMULATOR, scale.reshape(1, -1), 0, Block((-1, 1)))


def integers() -> Program:
    """fc returns the sums of products of the input's codes; of an input of zeros they are 0.0."""
    w = weight((3, 4), 0)
    values = {"x": Value((None, 4), None), "codes": Value((None, 4), X), "fc": Value((None, 3), sums(X, w))}
    return Program(ONNXRUNTIME, ("x",), (op.Quantize("codes", "x"), op.Linear("fc", "codes", w, None, *WHOLE)), values,
                   "fc")


def islands() -> Program:
    """codes → fc → tanh → near (codes behind an island) → out; and the square root of fc, which has NaN."""
    first, last = weight((5, 4), 1), weight((2, 5), 2)
    nodes = (
        op.Quantize("codes", "x"), op.Linear("fc", "codes", first, None, 0, 255), op.Dequantize("real", "fc"),
        op.FloatCall("tanh", "aten.tanh.default", {"self": op.Read("real")}),
        op.FloatCall("root", "aten.sqrt.default", {"self": op.Read("real")}),
        op.Quantize("near", "tanh"), op.Linear("out", "near", last, None, *WHOLE),
    )
    values = {"x": Value((None, 4), None), "codes": Value((None, 4), X), "fc": Value((None, 5), Y),
              "real": Value((None, 5), None), "tanh": Value((None, 5), None), "root": Value((None, 5), None),
              "near": Value((None, 5), NARROW), "out": Value((None, 2), sums(NARROW, last))}
    return Program(ONNXRUNTIME, ("x",), nodes, values, ("out", "near", "root"))


Change = Callable[[np.ndarray], None]


@pytest.fixture
def changed(monkeypatch):
    """changed(name, change, *of): ONNX Runtime's tensor of that name is changed in place before anybody sees it, of the
    program's `integers`, its `islands`, or the `whole`."""
    right = OnnxSession.run

    def part(outputs: list[str]) -> str:
        if "codes" in outputs or "real.float" in outputs:
            return "integers"
        return "whole" if "out.float" in outputs or "fc.float" in outputs else "islands"

    def use(name: str, change: Change, *of: str, also: tuple[str, Change, str] | None = None) -> None:
        def run(session: OnnxSession, inputs):
            results = {key: array.copy() for key, array in right(session, inputs).items()}
            for wanted, apply, parts in ((name, change, of), *([] if also is None else [(also[0], also[1], also[2:])])):
                if wanted in results and part(session.outputs) in parts:
                    apply(results[wanted])
            return results

        monkeypatch.setattr(OnnxSession, "run", run)

    return use


def put(number: float, place: tuple[int, ...] = (0, 0)) -> Change:
    def change(array: np.ndarray) -> None:
        array[place] = number

    return change


def add(number: float, place: tuple[int, ...] = (0, 0)) -> Change:
    def change(array: np.ndarray) -> None:
        array[place] += np.asarray(number).astype(array.dtype)

    return change


def step(program: Program, name: str) -> float:
    return float(program.encoding(name).scale.reshape(-1)[0])


def counted(program: Program, every_value: bool = True) -> dict[tuple[str, str, str], tuple[int, int, float]]:
    """(differing, near, largest) of each row of the report that is not all zeros, by form, level and extent."""
    rows = agreement(program, [BATCH], every_value=every_value)
    return {(row.form, row.level, row.values): (row.differing, row.near, row.largest) for row in rows
            if row.engine == "onnxruntime" and row.exact and (row.differing or row.near)}


# -------------------------------------------------------------------------------------- before a file is exported


def test_one_value_one_step_off_is_refused_and_the_older_file_stays(changed, tmp_path):
    program, file = integers(), tmp_path / "a.onnx"
    file.write_bytes(b"older")
    assert (BATCH.numpy() != 0).any()
    changed("fc.float", add(step(program, "fc")), "whole")
    with pytest.raises(VerificationError, match=r"a\.onnx was not written: onnxruntime \(optimisation off\) differs "
                                                r"from the program in 1 of 9 values of 'fc' on batch 0"):
        export_onnx(program, file, [BATCH])
    with pytest.raises(VerificationError, match=r"optimisation all"):
        export_onnx(program, file, [BATCH], form="qdq")
    assert (file.read_bytes(), len(list(tmp_path.iterdir()))) == (b"older", 1)


def test_a_nan_where_a_number_should_be_is_refused(changed, tmp_path):
    changed("fc.float", put(np.nan), "whole")
    with pytest.raises(VerificationError, match="1 of 9 values of 'fc'"):
        export_onnx(integers(), tmp_path / "a.onnx", [BATCH])


def test_a_zero_of_the_other_sign_is_the_same_number_to_an_export(changed, tmp_path):
    program = integers()
    changed("fc.float", put(-0.0, (2, 0)), "whole")
    assert export_onnx(program, tmp_path / "a.onnx", [BATCH]) == 2 * 9  # at two levels


def test_the_later_batch_is_named(changed, tmp_path):
    seen = []

    def second_call_of_a_level(array: np.ndarray) -> None:
        seen.append(None)
        if len(seen) == 3:  # off and all on batch 0, off on batch 1
            array[1, 2] += 1

    changed("fc.float", second_call_of_a_level, "whole")
    with pytest.raises(VerificationError, match="on batch 1"):
        export_onnx(integers(), tmp_path / "a.onnx", [BATCH, BATCH])


def test_nothing_to_verify_on_is_refused(tmp_path):
    with pytest.raises(VerificationError, match="was not written: there was no batch to verify it on"):
        export_onnx(integers(), tmp_path / "a.onnx", [])


def test_a_code_behind_an_island_may_be_one_step_off_but_not_two(changed, tmp_path):
    program, file = islands(), tmp_path / "a.onnx"
    changed("near.float", add(step(program, "near")), "islands")
    assert export_onnx(program, file, [BATCH])
    changed("near.float", add(2 * step(program, "near")), "islands")
    with pytest.raises(VerificationError, match="1 of 15 values of 'near'"):
        export_onnx(program, file, [BATCH])


def test_integers_of_a_program_with_islands_may_not_differ(changed, tmp_path):
    program = islands()
    changed("out.float", add(step(program, "out")), "integers")
    with pytest.raises(VerificationError, match="1 of 6 values of 'out'"):
        export_onnx(program, tmp_path / "a.onnx", [BATCH])


def test_the_whole_may_differ_only_if_an_island_moved_a_code(changed, tmp_path):
    """And then by little: the energy of the outputs is 30 dB over that of their difference."""
    program, file = islands(), tmp_path / "a.onnx"
    codes = reference.run(program, {"x": BATCH.numpy()})["out"]
    norm = float(np.linalg.norm(program.real("out", codes)))
    moved = ("near.float", add(step(program, "near")), "islands")
    for away, also in ((step(program, "out"), None), (0.033 * norm, moved), (np.nan, moved)):
        changed("out.float", add(away), "whole", also=also)
        with pytest.raises(VerificationError, match="1 of 6 values of 'out'"):
            export_onnx(program, file, [BATCH])
    changed("out.float", add(0.03 * norm), "whole", also=moved)
    assert export_onnx(program, file, [BATCH])


@pytest.mark.parametrize(("name", "part"), [("near.float", "islands"), ("near.float", "whole"), ("out.float", "whole")])
def test_a_nan_is_no_code(name, part, changed, tmp_path):
    changed(name, put(np.nan), part)
    with pytest.raises(VerificationError, match=f"1 of .* values of '{name[:-6]}'"):
        export_onnx(islands(), tmp_path / "a.onnx", [BATCH])


def test_a_float_moved_within_its_tolerance_moves_no_code(changed, tmp_path):
    program, file = islands(), tmp_path / "a.onnx"
    largest = float(np.nanmax(_reals(program)))
    changed("root.float", add(0.5 * TOLERANCE * largest), "islands", "whole")
    assert export_onnx(program, file, [BATCH])
    changed("root.float", add(4 * TOLERANCE * largest), "islands")
    with pytest.raises(VerificationError, match="values of 'root'"):
        export_onnx(program, file, [BATCH])


def _reals(program: Program) -> np.ndarray:
    return reference.run(program, {"x": BATCH.numpy()}, ["real"])["real"]


def test_nan_is_the_same_as_nan_in_an_island_and_as_nothing_else(changed, tmp_path):
    program, file = islands(), tmp_path / "a.onnx"
    lost = np.argwhere(_reals(program) < 0)
    found = np.argwhere(_reals(program) > 0)
    assert len(lost)
    assert len(found)
    assert export_onnx(program, file, [BATCH]), "the root of a negative number is NaN on every engine"
    for place, number in ((lost[0], 0.0), (found[0], np.nan)):
        changed("root.float", put(number, tuple(place)), "islands")
        with pytest.raises(VerificationError, match="1 of 15 values of 'root'"):
            export_onnx(program, file, [BATCH])


# --------------------------------------------------------------------------------------- where a file is replayed


def replayed(program: Program, forged: Callable[[Vectors], None] = lambda vectors: None) -> dict[str, tuple]:
    """(differing, first) by engine."""
    artifact = from_bytes(to_bytes(program), "a")
    forged(artifact.vectors)
    return {replay.engine: (replay.differing, replay.first) for replay in verify(artifact)}


def test_a_replay_counts_codes_that_differ(changed):
    assert set(replayed(integers()).values()) == {(0, None)}
    changed("codes", add(1, (1, 2)), "integers")
    assert replayed(integers()) == {"reference": (0, None), "torch": (0, None), "native": (0, None),
                                      "onnxruntime": (1, "codes")}


@pytest.mark.parametrize(("engine", "differing"), [("onnxruntime", 8), ("torch", 8), ("reference", 8)])
def test_a_missed_hash_counts_whole_where_no_codes_are_known(engine, differing):
    """The hash of an inner value is the only witness: which of its codes are wrong cannot be said."""
    def forge(vectors: Vectors) -> None:
        vectors.hashes["codes"] = bytes(8)

    assert replayed(integers(), forge)[engine] == (differing, "codes")


def test_a_stored_output_is_compared_code_by_code_though_its_hash_is_right():
    def forge(vectors: Vectors) -> None:
        vectors.outputs["fc"][0, 1] += 1

    # ONNX Runtime gives no sums as codes, and its float output is held against the stored ones
    assert set(replayed(integers(), forge).values()) == {(1, "fc")}


def test_a_replay_holds_float_outputs_to_their_bits(changed):
    program = integers()
    empty = Quantized(np.zeros((3, 4), np.int8), program.nodes[1].weight.encoding)
    zeros = Program(ONNXRUNTIME, ("x",), (program.nodes[0], op.Linear("fc", "codes", empty, None, *WHOLE)),
                    program.values, "fc")
    changed("fc.float", put(-0.0), "whole")
    assert replayed(zeros)["onnxruntime"] == (1, "fc")
    changed("fc.float", put(np.nan), "whole")
    assert replayed(zeros)["onnxruntime"] == (1, "fc")


def test_a_replay_counts_what_has_another_shape_whole(monkeypatch):
    right = TorchExecutor.run

    def cut(executor: TorchExecutor, inputs, keep=()):
        results = right(executor, inputs, keep)
        return results | {"codes": results["codes"][:1]}

    monkeypatch.setattr(TorchExecutor, "run", cut)
    assert replayed(integers())["torch"] == (4, "codes")


def test_a_replay_holds_islands_to_their_tolerance(changed):
    program = islands()
    largest = 2.0  # more than any number of the test vectors' tanh, and less than twice as much
    changed("tanh", add(0.2 * TOLERANCE * largest), "islands")
    assert replayed(program)["onnxruntime"] == (0, None)
    changed("tanh", add(100 * TOLERANCE * largest), "islands")
    assert replayed(program)["onnxruntime"][0] == 1
    changed("tanh", put(np.nan), "islands")
    assert replayed(program)["onnxruntime"] == (1, "tanh")


# ------------------------------------------------------------------------------------------ what the report counts


def test_the_report_counts_codes_and_says_the_largest_step(changed):
    program = integers()
    assert counted(program) == {}
    changed("codes", add(3), "integers")
    assert counted(program) == {(form, level, "every value"): (1, 0, 3.0)
                                for form, level in (("integer", "off"), ("integer", "all"), ("qdq", "all"))}


def test_the_report_holds_float_outputs_to_their_bits(changed):
    changed("fc.float", put(-0.0, (2, 0)), "whole", "integers")
    assert counted(integers(), every_value=False)["integer", "all", "outputs"] == (1, 0, 0.0)


def test_the_report_counts_one_step_behind_an_island_apart(changed):
    for steps, expected in ((1, (0, 1)), (2, (1, 0))):
        changed("near", add(steps), "islands")
        assert {key: value[:2] for key, value in counted(islands()).items()} == {
            (form, level, "float islands"): expected for form in ("integer", "qdq") for level in ("off", "all")}


def test_the_report_promises_nothing_of_the_whole_with_islands_and_of_qdq_without_optimisation(changed):
    rows = agreement(islands(), [BATCH])
    assert {(row.form, row.level, row.values): row.exact for row in rows if row.engine == "onnxruntime"} == {
        (form, level, extent): extent == "float islands" or (extent == "outputs" and (form, level) != ("qdq", "off"))
        for form, level in (("integer", "off"), ("integer", "all"), ("qdq", "all"), ("qdq", "off"))
        for extent in ("outputs", "float islands", "end to end")}


def test_the_report_refuses_another_shape(monkeypatch):
    right = OnnxSession.run
    monkeypatch.setattr(OnnxSession, "run", lambda session, inputs: {
        name: array[:1] for name, array in right(session, inputs).items()})
    with pytest.raises(VerificationError, match=r"onnxruntime integer, optimisation off returns 'fc' of shape \(1, "
                                                r"3\), not \(3, 3\)"):
        agreement(integers(), [BATCH])
