"""The `fewbits` command: its verbs, and what happens to errors."""

import re
import sys
import warnings
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from fewbits.cli.output import console
from fewbits.cli.verb import Session, add, told_of
from fewbits.cli.verbs import ALL
from fewbits.errors import FewbitsError, FewbitsWarning, InterruptedVerb
from fewbits.version import __version__

EXIT_CODES = """\b
Exit codes:
  0    done
  2    bad input, or a file that does not verify: one sentence on standard error
  3    an export was refused; the rest is written
  130  interrupted (Ctrl-C); a sentence says what was kept"""

USAGE = 2
"""The exit code of a command that is misspelt."""

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
            sys.exit(app(obj=session, standalone_mode=False) or 0)
    except TyperException as misspelt:
        context = getattr(misspelt, "ctx", None)
        if not sys.argv[1:]:
            print(misspelt.format_message(), file=sys.stderr)  # the help
            sys.exit(USAGE)
        session.verb = context.info_name if context is not None and context.parent is not None else ""
        _end(session, USAGE, {"kind": "UsageError", "message": (told := _sentence(misspelt, session.verb))}, told)
    except FewbitsError as error:
        _end(session, error.exit_code, told_of(error), str(error))
    except PermissionError as error:  # of a path that may not even be looked up
        told = f"{error.filename}: {error.strerror}; choose another place"
        _end(session, USAGE, {"kind": "FileError", "message": told}, told)
    except KeyboardInterrupt:  # before a verb began
        interrupted = InterruptedVerb("interrupted; nothing was begun")
        _end(session, interrupted.exit_code, told_of(interrupted), str(interrupted))


def _end(session: Session, code: int, error: dict[str, object], sentence: str) -> NoReturn:
    if "--json" in sys.argv and not session.printed:
        print(session.envelope(code, error=error))
    _say(f"fewbits: {sentence}", "red")
    sys.exit(code)


_WORDINGS = (
    (r"Missing (?:option|argument) '(.*)'", r"\1 is missing"),
    (r"Invalid value for '(.*?)':", r"\1:"),
    (r"No such command '(.*?)'", r"there is no verb '\1'"),
    (r"No such option: (\S+)", r"there is no option \1"),
    (r"[. ]+\(?(?:Did you mean|Possible options?:) (.*?)[)?]*$", r", did you mean \1?"),
    (r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", r"more is given than is asked for, \1"))
"""Of typer's messages, and ours."""


def _sentence(misspelt: TyperException, verb: str) -> str:
    """What was typed wrong, and where it stands what may be typed."""
    told = " ".join(misspelt.format_message().replace("Value error, ", "").split()).rstrip(".")
    for theirs, ours in _WORDINGS:
        told = re.sub(theirs, ours, told)
    return f"{told}{'' if told.endswith('?') else ':'} see `{' '.join(['fewbits', verb]).strip()} --help`"


def _say(text: str, style: str) -> None:
    console(sys.stderr).print(text, style=style, highlight=False, markup=False, soft_wrap=True)
