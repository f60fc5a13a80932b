"""Options that take one of a few words, checked where they are given.

An option is a parameter annotated with a `Literal`, or with a collection of such words. `options_checked` reads the
annotation, so that what the signature says is what the function takes.
"""

from collections.abc import Callable, Collection, Iterator
from functools import cache, wraps
from inspect import signature
from types import NoneType
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
            place = names.index(name)
            if place < len(args):
                check_option(name, args[place], hint)
            elif name in kwargs:
                check_option(name, kwargs[name], hint)
        return called(*args, **kwargs)

    checked.__dict__["checks_options"] = True  # for the test that calls them all
    return cast(Checked, checked)


def check_option(name: str, value: object, hint: Any) -> None:
    """Raises OptionError, naming the option, the value and what is allowed, where `value` is none of the words of
    `hint`: a `Literal`, a union with some, or a collection of them."""
    if not _allows(hint, value):
        several = get_origin(hint) is not None and get_origin(hint) not in (Literal, Union)
        allowed = ", ".join(repr(word) for word in words(hint))
        raise OptionError(f"{name} = {value!r} is not allowed: give {'any of' if several else 'one of'} {allowed}")


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
