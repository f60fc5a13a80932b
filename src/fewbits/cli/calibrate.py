"""`fewbits calibrate`: find the ranges of a network, keep them, use them again."""

from rich.console import Console
from rich.table import Table

from fewbits.cli.opened import opened
from fewbits.cli.verbs.studies import Calibrate
from fewbits.quant.cache import calibrate_cached, save_ranges
from fewbits.quant.tensorrt_table import apply_table, read_table, write_table
from fewbits.report.pictures import check_kl_curves, kl_curves


def calibrate(asked: Calibrate, console: Console) -> object:
    """The job of the verb."""
    scales = None if asked.from_tensorrt is None else read_table(asked.from_tensorrt)
    job, cache = opened(asked), asked.cache
    known = cache.exists()
    if asked.plot is not None:
        check_kl_curves(job.plan, known)
    data_digest = job.calibration.digest()
    simulation = calibrate_cached(job.model, job.plan, job.calibration, cache, data=data_digest)
    if scales is not None:
        simulation, known = apply_table(simulation, scales), False
        save_ranges(simulation, cache, data=data_digest)
    table = Table("tensor", "encoding", "rule")
    for quantizer in simulation.quantizers():
        table.add_row(quantizer.site, str(quantizer.encoding), quantizer.spec.range)
    console.print(table)
    console.print(f"read from {cache}" if known else f"written: {cache}", highlight=False)
    if job.plan.repairs:
        console.print(f"{', '.join(job.plan.repairs)}: made by `fewbits quantize`, which may read these ranges")
    if asked.plot is not None:
        kl_curves(simulation).save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    if asked.tensorrt is not None:
        write_table(simulation, asked.tensorrt)
        console.print(f"written: {asked.tensorrt}", highlight=False)
    return {"cache": cache, "read": known, "repairs_to_come": job.plan.repairs, "tensors": [
        {"tensor": quantizer.site, "encoding": str(quantizer.encoding), "rule": quantizer.spec.range}
        for quantizer in simulation.quantizers()]}
