"""`fewbits doctor`."""

from rich.console import Console
from rich.table import Table

from fewbits.cli.verbs.doctor import Doctor
from fewbits.report.doctor import diagnosis


def doctor(asked: Doctor, console: Console) -> object:
    """The job of the verb."""
    found = diagnosis()
    machine, kernels = found.machine, found.kernels
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    features = ", ".join(machine.features) or "none of those that integer arithmetic uses"
    table.add_row("processor", f"{machine.processor or machine.system}, {machine.cores} cores")
    table.add_row("features", features)
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in machine.versions))
    chosen = f"; {kernels.level} is used" if kernels.level else ""
    table.add_row("kernel levels", ", ".join(kernels.levels) + chosen
                  + (f" (FEWBITS_LEVEL={kernels.wanted})" if kernels.wanted else ""))
    for engine in found.engines:
        told = "" if engine.missing else "gives a program's codes" if engine.promises else "promises no equal codes"
        table.add_row(f"engine {engine.name}", engine.missing or told)
    for extra in found.extras:
        table.add_row(extra.package, f"{extra.version or 'not installed'}: {extra.purpose}")
    table.add_row("choices", found.choices or "not kept (FEWBITS_CACHE is empty)")
    console.print(table, highlight=False, markup=False)
    for line in found.missing:
        console.print(f"missing: {line}", highlight=False, markup=False, soft_wrap=True)
    if not found.missing:
        console.print("nothing is missing", highlight=False)
    return found
