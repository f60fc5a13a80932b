"""`fewbits reproduce`: the list, and its refusals."""

from fewbits.reproduce.rows import ROWS


def test_the_list(fewbits, tmp_path) -> None:
    shown = fewbits("reproduce", "--list", "--records", tmp_path)
    assert shown.code == 0
    assert "times_smaller" in shown.out


def test_bad_input_is_one_sentence(fewbits) -> None:
    unknown = fewbits("reproduce", "deep-compression-lenet-6")
    assert unknown.code == 2
    assert next(iter(ROWS)) in unknown.err
    without = fewbits("reproduce", next(iter(ROWS)))
    assert without.code == 2
    assert "mnist:DIR" in without.err
