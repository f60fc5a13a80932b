"""The page of benchmarks keeps what other processors gave."""

from benchmarks.side_by_side import Row, Run, markdown, with_section


def run(machine: str, ours: float) -> Run:
    times = {"onnxruntime fp32": 10.0, "native amx": ours}
    return Run(f"{machine}; python 3.11", 1, 1, "w8a8", (0.5, 0.5), (Row("lenet5", times, {}),), ())


def test_a_machine_replaces_its_own_section_alone() -> None:
    page = ""
    for machine, ours in (("A, 2 cores (avx2)", 5.0), ("B, 2 cores (amx_int8)", 4.0), ("A, 2 cores (avx2)", 2.5)):
        page = with_section(page, markdown(run(machine, ours), "some.svg"))
    assert page.startswith("# Benchmarks\n") and page.count("\n## ") == 2
    first, second = page.split("\n## ")[1:]
    assert first.startswith("B, 2 cores") and "| lenet5 | 0.010 | 2.50 |" in first
    assert second.startswith("A, 2 cores") and "| lenet5 | 0.010 | 4.00 |" in second
