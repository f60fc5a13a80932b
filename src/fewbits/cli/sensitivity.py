"""`fewbits sensitivity`: which tensors lose the accuracy, and why."""

from itertools import islice

from rich.console import Console

from fewbits.cli.opened import opened
from fewbits.cli.verbs.studies import Sensitivity
from fewbits.files import write_whole
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.report.explain import explain
from fewbits.report.page import explanation_page
from fewbits.report.pictures import histograms


def sensitivity(asked: Sensitivity, console: Console) -> object:
    """The job of the verb."""
    job = opened(asked)
    simulation = calibrate_and_repair(job.model, job.plan, job.calibration)
    explanation = explain(simulation, list(islice(job.calibration, max(1, asked.images // asked.batch_size))))
    explanation.render(console)
    if asked.html is not None:
        write_whole(asked.html, explanation_page(explanation, f"{asked.network}, {asked.recipe}").encode())
        console.print(f"written: {asked.html}", highlight=False)
    if asked.plot is not None:
        histograms(explanation).save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    return explanation
