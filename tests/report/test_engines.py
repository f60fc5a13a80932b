"""Agreement: none differ where all compute one program, and a program changed under one engine is caught."""

import pytest
from report_cases import Case, shifted

from fewbits.engines import onnxruntime
from fewbits.report.engines import agreement
from fewbits.writers.onnx.program import onnx_bytes


def test_all_engines_agree_at_every_value(residual: Case, everything: Case) -> None:
    for case in (residual, everything):
        rows = agreement(case.program, case.batches, every_value=True)
        sessions = (("integer", "off"), ("integer", "all"), ("qdq", "all"), ("qdq", "off"))
        assert [(row.form, row.level, row.values) for row in rows] == [
            ("", "", "every value"), *[("", "", extent) for extent in ("every value", "outputs")],
            *[(*session, extent) for session in sessions for extent in ("outputs", "every value")]]
        assert [row.differing for row in rows if row.exact] == [0] * 9
        assert [row.largest for row in rows if row.exact] == [0.0] * 9
        assert [row.exact for row in rows] == [True] * 9 + [False] * 2


def test_one_code_is_counted_per_element(residual: Case) -> None:
    images = sum(map(len, residual.batches))
    rows = agreement(residual.program, residual.batches, every_value=True)
    codes = images * (2 * 36 + 3 * 6 * 36 + 2 * 54)  # input, three sites, pool and flatten
    torch_and_native = [codes + 5 * images] * 2 + [2 * 5 * images]  # its codes, and the numbers that they stand for
    assert [row.compared for row in rows] == [*torch_and_native, *[5 * images, codes + 5 * images] * 4]
    assert {row.images for row in rows} == {images}


def test_a_changed_bias_in_the_export_is_found(residual: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = shifted(residual.program, "conv2", 1)
    monkeypatch.setattr(onnxruntime, "onnx_bytes",
                        lambda program, *rest, **named: onnx_bytes(wrong, *rest, **named))
    torch_row, native, plain, *rows = agreement(residual.program, residual.batches, every_value=True)
    assert torch_row.differing == native.differing == plain.differing == 0
    assert all(row.differing > 0 for row in rows)
    assert all(row.largest >= 1 for row in rows)


def test_the_reference_may_run_on_the_first_batches_only(residual: Case) -> None:
    torch_row, *rows = agreement(residual.program, residual.batches, reference_batches=1)
    assert torch_row.images == len(residual.batches[0])
    assert {row.images for row in rows} == {sum(map(len, residual.batches))}
    assert [row.values for row in (torch_row, *rows)] == ["outputs"] * 6
