"""The `fewbits` command: its verbs, and what happens to errors."""

import sys
import warnings
from typing import Annotated

import typer
from typer.exceptions import TyperException

from fewbits.cli.output import console
from fewbits.cli.verb import Session, add, told_of
from fewbits.cli.verbs import ALL
from fewbits.errors import FewbitsError, FewbitsWarning
from fewbits.version import __version__

EXIT_CODES = """\b
Exit codes:
  0    done
  2    bad input, or a file that does not verify: one sentence on standard error
  3    an export was refused; the rest is written
  130  interrupted (Ctrl-C); a sentence says what was kept"""

app = typer.Typer(name="fewbits", add_completion=False, no_args_is_help=True, rich_markup_mode=None,
                  pretty_exceptions_enable=False, epilog=EXIT_CODES,
                  help="Takes a float PyTorch model and gives back the same model in few bits, with proof.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fewbits {__version__}")
        raise typer.Exit


@app.callback()
def fewbits(version: Annotated[bool, typer.Option(
        "--version", help="Print the version", is_eager=True, callback=_print_version)] = False) -> None:
    """What all verbs share."""


for verb in ALL:
    add(app, verb)


def run() -> None:
    """Entry point: bad input is one sentence on standard error and exit code 2, a refused export exit code 3, an
    interrupt exit code 130 and what was kept."""
    session = Session()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: object) -> None:
        """Our own warnings as one sentence; those of others as Python writes them."""
        ours = issubclass(category, FewbitsWarning)
        if ours:
            session.warnings.append(str(message))
        text = f"fewbits: warning: {message}" if ours else warnings.formatwarning(message, category, filename, lineno)
        _say(text, "yellow")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", FewbitsWarning)
            warnings.showwarning = show
            app(obj=session)
    except FewbitsError as error:
        if "--json" in sys.argv and not session.printed:
            print(session.envelope(error.exit_code, error=told_of(error)))
        _say(f"fewbits: {error}", "red")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before a verb began
        sys.exit(130)
    except SystemExit as stop:
        misspelt = stop.__context__  # typer has shown it on standard error
        if "--json" in sys.argv and not session.printed and isinstance(misspelt, TyperException):
            context = getattr(misspelt, "ctx", None)
            session.verb = context.info_name if context is not None and context.parent is not None else ""
            message = " ".join(misspelt.format_message().replace("Value error, ", "").split())
            print(session.envelope(int(stop.code or 0), error={"kind": "UsageError", "message": message}))
        raise


def _say(text: str, style: str) -> None:
    console(sys.stderr).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
