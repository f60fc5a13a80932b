"""The simulation's distance from the program, and a wrong step seen where it is made and only there."""

import pytest
from report_cases import Case, lowered, shifted

from fewbits.errors import CalibrationError
from fewbits.report.simulation_gap import SimulationGap, simulation_gap
from fewbits.testing import random_network


def gap(case: Case) -> SimulationGap:
    return simulation_gap(case.program, case.simulation, case.batches)


def test_every_code_is_compared(residual: Case) -> None:
    found = gap(residual)
    values, images = residual.program.values, sum(map(len, residual.batches))
    sizes = {"x": 2 * 36, "relu": 6 * 36, "conv2": 6 * 36, "relu#2": 6 * 36}
    assert {site.site: site.compared for site in found.sites} == {
        name: images * size for name, size in sizes.items()}
    assert found.compared == images * sum(sizes.values())
    assert [(output.site, output.compared) for output in found.outputs] == [("head", images * 5)]
    assert found.outputs[0].relative < 1e-5
    assert set(sizes) - {"x"} < set(values)


def test_the_promise_holds_on_small_networks(residual: Case, everything: Case) -> None:
    for found in (gap(residual), gap(everything)):
        assert found.largest <= 1
        exact = [site for site in found.sites if site.site != "log_softmax"]
        assert sum(site.differing for site in exact) <= sum(site.compared for site in exact) / 10_000


def test_logarithms_are_off_where_their_table_may_round_otherwise(everything: Case) -> None:
    (site,) = (site for site in gap(everything).sites if site.site == "log_softmax")
    # A table of 1024 entries to an octave is up to 2^-11 off, in steps of this: on both sides of a tie.
    step = float(everything.program.encoding("log_softmax").scale)
    assert 0 < site.differing <= 2 * 2**-11 / step * site.compared


def test_the_promise_holds_over_random_networks() -> None:
    found = [gap(lowered(*random_network(seed))) for seed in range(12)]
    assert max(each.largest for each in found) <= 1
    assert sum(each.differing for each in found) <= sum(each.compared for each in found) / 10_000


@pytest.mark.parametrize("steps", [1, -1, 3])
def test_an_injected_error_is_counted_where_it_was_made_and_not_passed_on(residual: Case, steps: int) -> None:
    wrong = Case(shifted(residual.program, "conv2", steps), residual.simulation, residual.batches)
    found = gap(wrong)
    (site,) = found.worst
    assert site.site == "conv2"
    assert site.largest == abs(steps) == found.largest
    assert site.differing > 0.97 * site.compared  # those at the ends of the grid saturate
    assert found.differing == site.differing


def test_a_simulation_that_does_not_simulate_is_refused(residual: Case) -> None:
    simulation = residual.simulation.copy()
    simulation.set_mode("off")
    with pytest.raises(CalibrationError, match="set_mode"):
        simulation_gap(residual.program, simulation, residual.batches)
    simulation.set_mode("simulate")
    simulation.train()
    with pytest.raises(CalibrationError, match=r"sim\.eval"):
        simulation_gap(residual.program, simulation, residual.batches)
