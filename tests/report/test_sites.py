"""SQNR: the formula by hand, and the measurement against one made another way."""

import numpy as np
import pytest
import torch
from report_cases import Case

from fewbits.errors import DataError
from fewbits.numerics.encoding import Encoding
from fewbits.program import reference
from fewbits.report.sites import site_errors
from fewbits.report.sqnr import CEILING, decibels


def test_decibels_by_hand() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20.0)
    assert decibels(np.array([1.0, 1.0, 0.0, 0.0, 5.0]), np.array([10.0, 1e-30, 0.0, 1.0, 0.0])).tolist() == [
        pytest.approx(-10.0), CEILING, CEILING, -CEILING, CEILING]


def test_the_input_site_by_hand(residual: Case) -> None:
    encoding = residual.program.encoding("x.codes")
    x = np.concatenate([batch.numpy() for batch in residual.batches]).astype(np.float64)
    rounded = encoding.decode(encoding.encode(x.astype(np.float32)).codes)
    expected = 10 * np.log10(np.square(x).sum() / np.square(x - rounded).sum())
    first = site_errors(residual.program, residual.simulation, residual.batches)[0]
    assert (first.site, first.kind) == ("x", "input")
    assert first.sqnr == pytest.approx(expected, rel=1e-9)


def test_the_output_site_is_the_models_output_against_the_programs(residual: Case) -> None:
    program, model = residual.program, residual.simulation.model
    (name,) = program.outputs
    signal = noise = 0.0
    for batch in residual.batches:
        with torch.no_grad():
            exact = model(batch).double().numpy()
        real = program.encoding(name).decode(reference.run(program, {"x": batch.numpy()})[name])
        signal, noise = signal + np.square(exact).sum(), noise + np.square(exact - real).sum()
    last = site_errors(program, residual.simulation, residual.batches)[-1]
    assert (last.site, last.kind) == (name, "accumulator")
    assert last.sqnr == pytest.approx(10 * np.log10(signal / noise), rel=1e-9)


def test_every_computed_site_is_measured_and_sound(everything: Case) -> None:
    found = site_errors(everything.program, everything.simulation, everything.batches)
    sites = everything.simulation.plan.sites.values()
    assert [site.site for site in found] == [
        site.name for site in sites if site.kind in ("input", "activation", "accumulator")]
    assert all(site.sqnr > 20 for site in found)


def test_a_coarser_grid_has_less(residual: Case) -> None:
    encoding = residual.program.encoding("x.codes")
    coarse = Encoding(encoding.format, 4 * encoding.scale, encoding.zero_point)
    x = residual.batches[0].numpy()
    noise = [float(np.square(x - grid.decode(grid.encode(x).codes)).sum()) for grid in (encoding, coarse)]
    assert decibels(1.0, noise[0]) - decibels(1.0, noise[1]) == pytest.approx(20 * np.log10(4), abs=1.0)


def test_batches_that_do_not_fit_are_refused(residual: Case) -> None:
    for batches, says in (([], "no batches"), (residual.batches[0], "one tensor"),
                          ([residual.batches[0] * torch.nan], "batch 0: input 'x' is empty or holds NaN"),
                          ([residual.batches[0], torch.ones(2, 3)], "batch 1: input 'x' has shape 2")):
        with pytest.raises(DataError, match=says):
            site_errors(residual.program, residual.simulation, batches)
