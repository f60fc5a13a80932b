"""A verb of the command line: what it is told, and the command made of that.

What a verb is told is a frozen dataclass in `cli/verbs/`, whose fields are its arguments and options. It imports no
torch, so that `--help` is quick. What it does is a function in `cli/`, its `job`, which is imported when the verb runs:
it takes the dataclass and a console, prints for people, and returns what `--json` prints.
"""

import dataclasses
import importlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from inspect import Parameter, Signature, cleandoc, get_annotations
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import typer

from fewbits.cli.output import as_json, console, silence
from fewbits.errors import FewbitsError, InterruptedVerb
from fewbits.progress import doing
from fewbits.version import __version__

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, nothing else")]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Base of all verbs. job: the function that does it, `module:name`; examples: whole commands, for `--help`;
    resumes: fields that name a file from which the same command goes on after an interrupt."""

    job: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]
    resumes: ClassVar[tuple[str, ...]] = ()

    def resumed_from(self) -> list[Path]:
        """Files from which the same command goes on."""
        return [path for name in self.resumes if (path := getattr(self, name)) is not None]


@dataclass(frozen=True)
class Failed:
    """What a job returns that has a result and fails all the same: the error decides the exit code."""

    error: FewbitsError
    result: object


@dataclass
class Session:
    """One run of the command. verb: that was asked; warnings: all so far; printed: whether JSON is out already."""

    verb: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    printed: bool = False

    def envelope(self, exit_code: int, **more: object) -> str:
        """The one shape of `--json`."""
        told = {"fewbits": __version__, "verb": self.verb, "exit_code": exit_code, "warnings": self.warnings, **more}
        return json.dumps(as_json(told), indent=1, allow_nan=False)


def name_of(verb: type[Verb]) -> str:
    """As it is typed: RoundingStudy is `rounding-study`."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in verb.__name__).lstrip("-")


def options(verb: type[Verb]) -> Iterator[tuple[str, Any, Any]]:
    """Name, annotation and default of every field, a class's own before those of its bases."""
    hints, fields = get_type_hints(verb, include_extras=True), {field.name: field for field in dataclasses.fields(verb)}
    for owner in verb.__mro__:
        for name in get_annotations(owner):
            if name in fields and (field := fields.pop(name)):
                yield name, hints[name], Parameter.empty if field.default is dataclasses.MISSING else field.default


def add(app: typer.Typer, verb: type[Verb]) -> None:
    """Makes a verb a command of the app."""
    examples = "\n".join(f"  {each}" for each in verb.examples)
    head = "Example" if len(verb.examples) == 1 else "Examples"
    app.command(name_of(verb), help=(told := cleandoc(verb.__doc__ or "")), short_help=told.partition("\n\n")[0],
                epilog=f"\b\n{head}:\n{examples}")(_command(verb))


def job_of(verb: type[Verb]) -> Callable[[Any, Any], object]:
    """The function that does it. Imports it, and torch with it."""
    module, _, name = verb.job.partition(":")
    return getattr(importlib.import_module(module), name)


@contextmanager
def _interrupted_behind() -> Iterator[None]:
    """Around imports: a Ctrl-C takes effect when they are done, since NumPy and torch, imported by half, end in errors
    of their own. A second one takes effect at once."""
    if threading.current_thread() is not threading.main_thread() or (
            signal.getsignal(signal.SIGINT) is not signal.default_int_handler):
        yield
        return
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if asked:
        raise KeyboardInterrupt


def _command(verb: type[Verb]) -> Callable[..., None]:
    def run(context: typer.Context, json_wanted: bool, **told: Any) -> None:
        session = context.obj if isinstance(context.obj, Session) else Session()
        session.verb = name_of(verb)
        asked, began = verb(**told), time.time()
        try:
            with doing("starting"), _interrupted_behind():
                job = job_of(verb)
            if json_wanted:
                with redirect_stdout(sys.stderr):  # a network of the user's may print, too
                    result = job(asked, silence())
            else:
                result = job(asked, console(sys.stdout))
        except KeyboardInterrupt:
            raise InterruptedVerb(_kept(asked, began)) from None
        failed = result.error if isinstance(result, Failed) else None
        if json_wanted:
            inner = result.result if isinstance(result, Failed) else result
            more = {} if failed is None else {"error": told_of(failed)}
            print(session.envelope(0 if failed is None else failed.exit_code, result=inner, **more))
            session.printed = True
        if failed is not None:
            raise failed

    parameters = [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [Parameter(name, Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
                   for name, annotation, default in options(verb)]
    parameters.append(Parameter("json_wanted", Parameter.KEYWORD_ONLY, annotation=JsonOption, default=False))
    run.__dict__["__signature__"] = Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def told_of(error: FewbitsError) -> dict[str, object]:
    """An error in JSON."""
    return {"kind": type(error).__name__, "message": str(error)}


def _kept(asked: Verb, began: float) -> str:
    """What an interrupted verb leaves: files that it goes on from, and those that it had written whole."""
    again = [path for path in asked.resumed_from() if path.exists()]
    told = [f"{', '.join(map(str, again))} is kept, and the same command goes on from there"] if again else []
    written = sorted(str(path) for path in _written(asked, began) if path not in again)
    if written:
        told.append(f"written before, whole: {', '.join(written)}")
    return f"interrupted; {'; '.join(told) or 'nothing was kept, and what was on disk is as before'}"


def _written(asked: Verb, began: float) -> Iterator[Path]:
    """Files that the options name, or that lie in a folder that `out` names, changed since the verb began."""
    for field in dataclasses.fields(asked):
        path = getattr(asked, field.name)
        if isinstance(path, Path):
            candidates = path.iterdir() if path.is_dir() and field.name == "out" else (path,)
            for each in candidates:
                if each.is_file() and each.stat().st_mtime >= began and not each.name.endswith(".part"):
                    yield each
