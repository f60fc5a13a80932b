"""`fewbits calibration-study`: how many batches calibration needs on a network."""

from rich.console import Console
from rich.table import Table

from fewbits.cli.opened import opened
from fewbits.cli.verbs.studies import CalibrationStudy
from fewbits.errors import DataError
from fewbits.report.calibration_study import COUNTS
from fewbits.report.calibration_study import calibration_study as study
from fewbits.report.pictures import calibration
from fewbits.report.text import percent


def calibration_study(asked: CalibrationStudy, console: Console) -> object:
    """The job of the verb."""
    job = opened(asked)
    if job.data.test.y is None:
        raise DataError(f"{asked.data} has no labelled test images")
    test = job.data.test.batches(250, job.preparation.normalize)
    rows = study(job.model, job.plan, job.calibration, test, counts=asked.batches or COUNTS, profile=asked.profile,
                 float_model=job.net)
    table = Table("batches", "top-1", "change", "95 % interval", "top-5", "change", "flips", "SQNR, dB",
                  title=f"{asked.network}, {asked.recipe}, {asked.profile}: {rows[0].comparison.samples} test images, "
                        f"batches of {asked.batch_size}")
    top5 = rows[0].float_top5
    table.add_row("float", percent(rows[0].comparison.float_accuracy.mean), "", "",
                  "–" if top5 is None else percent(top5.mean), "", "", "")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)
    if asked.plot is not None:
        calibration(rows, f"{asked.network}, {asked.recipe}: batches of {asked.batch_size}").save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    return rows
