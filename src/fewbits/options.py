"""Options that take one of a few words, checked where they are given.

An option is a parameter annotated with a `Literal`, or with a collection of such words. `options_checked` reads the
annotation, so that what the signature says is what the function takes; `arguments_checked` reads plain kinds and
classes, too.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import cache, wraps
from inspect import signature
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fewbits.errors import OptionError

Checked = TypeVar("Checked", bound=Callable[..., Any])


def options_checked(called: Checked) -> Checked:
    """Decorator of a function, a method or a dataclass: raises OptionError for a word that an option does not allow.

    The check runs before anything else of the call, and before missing arguments are noticed.
    """
    if isinstance(called, type):
        called.__init__ = options_checked(called.__init__)
        return cast(Checked, called)
    names = tuple(signature(called).parameters)

    @cache
    def options() -> dict[str, Any]:  # not before the first call: annotations may name what is defined further down
        hints = get_type_hints(called)
        return {name: hints[name] for name in names if name in hints and any(words(hints[name]))}

    @wraps(called)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, hint in options().items():
            if (value := _given(name, names, args, kwargs)) is not _NOT_GIVEN:
                check_option(name, value, hint)
        return called(*args, **kwargs)

    checked.__dict__["checks_options"] = True  # for the test that calls them all
    return cast(Checked, checked)


def arguments_checked(called: Checked) -> Checked:
    """As `options_checked`, and raises OptionError for an argument of another kind than its annotation says: `int` is a
    whole number of up to 64 bits, `float` a finite one, `bool` True or False, `str` a text, a class something of that
    class. What is annotated otherwise, tensors first of all, the function checks itself."""
    if isinstance(called, type):
        called.__init__ = arguments_checked(called.__init__)
        return cast(Checked, called)
    names, inner = tuple(signature(called).parameters), options_checked(called)

    @cache
    def kinds() -> dict[str, tuple[Any, ...]]:
        hints = get_type_hints(called)
        split = {name: _parts(hints[name]) for name in names if name in hints}
        return {name: parts for name, parts in split.items() if all(isinstance(part, type) for part in parts)}

    @wraps(called)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, parts in kinds().items():
            value = _given(name, names, args, kwargs)
            if value is not _NOT_GIVEN and not any(_is(part, value) for part in parts):
                wanted = " or ".join(_WORDS.get(part, f"a {part.__name__}") for part in parts)
                raise OptionError(f"{name} is {shown(value)}, and must be {wanted}")
        return inner(*args, **kwargs)

    return cast(Checked, checked)


def choice(word: str, choices: Collection[str], where: str = "") -> str:
    """What a sentence advises in place of a word that is none of `choices`: the nearest ones where some are near, else
    all. where: what lists them all, for lists too long for a sentence."""
    near = get_close_matches(word, choices, n=3, cutoff=0.5)
    if near:
        return f"did you mean {enumerated(near, 'or')}?{f' {where} lists all' if where else ''}"
    return f"choose one of {', '.join(choices)}"


def enumerated(words: Sequence[str], last: str) -> str:
    """a, b or c."""
    return " ".join([", ".join(words[:-1]), last, words[-1]]) if len(words) > 1 else "".join(words)


def shown(value: object) -> str:
    """A value in a sentence: numbers, texts and short lists as they are, of others the class."""
    if value is None or isinstance(value, str | Real | list | tuple):
        try:
            text = repr(value)
        except ValueError:  # an integer of thousands of digits
            text = "a number of thousands of digits"
        if len(text) <= 60 and text.isprintable():
            return text
    return f"a {type(value).__name__}"


_NOT_GIVEN = object()
_WORDS: dict[type, str] = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text",
                           NoneType: "None"}


def _given(name: str, names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    place = names.index(name)
    return args[place] if place < len(args) else kwargs.get(name, _NOT_GIVEN)


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is(kind: type, value: object) -> bool:
    if kind is bool:
        return isinstance(value, bool) or type(value).__name__ == "bool"  # NumPy's, too
    if isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, Integral) and abs(int(value)) < 2**63
    if kind is float:
        try:
            return isinstance(value, Real) and isfinite(value)
        except OverflowError:
            return False
    return isinstance(value, kind)


def check_option(name: str, value: object, hint: Any) -> None:
    """Raises OptionError, naming the option, the value and what is allowed, where `value` is none of the words of
    `hint`: a `Literal`, a union with some, or a collection of them."""
    if not _allows(hint, value):
        several = get_origin(hint) is not None and get_origin(hint) not in (Literal, Union)
        allowed = ", ".join(repr(word) for word in words(hint))
        raise OptionError(f"{name} = {shown(value)} is not allowed: give {'any of' if several else 'one of'} {allowed}")


def words(hint: Any) -> Iterator[object]:
    """What the `Literal`s in an annotation allow."""
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for part in get_args(hint):
            yield from words(part)


def _allows(hint: Any, value: object) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return any(isinstance(value, type(word)) and value == word for word in parts)
    if isinstance(origin, type) and issubclass(origin, Collection):
        return isinstance(value, Collection) and not isinstance(value, str) and all(
            any(_allows(part, one) for part in parts) for one in value)
    if parts:
        return any(_allows(part, value) for part in parts)
    return isinstance(value, NoneType if hint is None else hint)


def check_stage(name: str, value: object, wanted: type, mend: str) -> None:
    """Raises OptionError for a value of another stage of the way from a network to a program. mend: the call that
    makes what is wanted."""
    if not isinstance(value, wanted):
        raise OptionError(f"{name} is a {type(value).__name__}, not a {wanted.__name__}: give what {mend} returns")
