"""The `fewbits` command: its verbs, and what happens to errors."""

import sys
import warnings

import typer
from rich.console import Console

from fewbits.cli.calibrate import calibrate
from fewbits.cli.calibration_study import calibration_study
from fewbits.cli.compare_plans import compare_plans
from fewbits.cli.compress import compress, decompress
from fewbits.cli.encodings import encodings
from fewbits.cli.formats import formats
from fewbits.cli.lab import lab
from fewbits.cli.quantize import demo, quantize
from fewbits.cli.reproduce import reproduce
from fewbits.cli.rounding_study import rounding_study
from fewbits.cli.saved import evaluate, export, inspect, verify
from fewbits.cli.search import search
from fewbits.cli.sensitivity import sensitivity
from fewbits.cli.train import train
from fewbits.errors import FewbitsError, FewbitsWarning

app = typer.Typer(name="fewbits", add_completion=False, no_args_is_help=True, rich_markup_mode=None,
                  pretty_exceptions_enable=False,
                  help="Takes a float PyTorch model and gives back the same model in few bits, with proof.")
for verb in (quantize, demo, evaluate, inspect, verify, export, encodings, calibrate, train, search, compare_plans,
             sensitivity, rounding_study, calibration_study, formats, compress, decompress, reproduce, lab):
    app.command()(verb)


def run() -> None:
    """Entry point: bad input is one sentence on standard error and exit code 2, a refused export exit code 3, an
    interrupt exit code 130."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", FewbitsWarning)
            warnings.showwarning = _show
            app()
    except FewbitsError as error:
        Console(stderr=True).print(f"fewbits: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
    """Our own warnings as one sentence; those of others as Python writes them."""
    ours = issubclass(category, FewbitsWarning)
    text = f"fewbits: warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno)
    Console(stderr=True).print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
