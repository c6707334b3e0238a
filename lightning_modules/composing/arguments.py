"""What a target takes: names and kinds of its arguments by its signature, and settings that it refuses at sight.

It builds nothing and knows no config: what is not built yet is `LATER`.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from plait.errors import RecipeError

CHECK = "check_settings"
"""Attribute of a target: what refuses its settings at sight (`checked_by`)."""
LATER = object()
"""stands for an object that is not built yet"""
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}
"""kinds of plain values, as messages call them"""


def checked_by(check: Callable[..., None]) -> Callable[[Any], Any]:
    """Let settings be refused before anything is built or written: `check` is called with those keyword arguments of a node that it takes
    by name, where all that it needs of them are plain values (or partials and dataclasses of such)."""

    def mark(target: Any) -> Any:
        setattr(target, CHECK, staticmethod(check) if inspect.isclass(target) else check)
        return target

    return mark


def check_count(number: Any, name: str, least: int = 1) -> int:
    """A whole number, numpy's too, that is not below `least` (RecipeError otherwise)."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        raise RecipeError(f"{name} is {number!r}, expected a whole number of at least {least}. Next: set {name}=<number>.")
    return int(number)


def check_arguments(
    target: Any, positional: tuple[Any, ...], values: dict[str, Any], path: str, is_partial: bool, sources: Mapping[str, str]
) -> None:
    """Compare the arguments of a node with the signature of its target: their names, and the kinds of plain values.

    Args:
        sources: argument -> the key that sets it, for errors.

    Raises:
        RecipeError: a name is unknown or missing, or a plain value is of a kind that the parameter does not take.
    """
    signature = inspect.signature(target)
    try:
        (signature.bind_partial if is_partial else signature.bind)(*positional, **values)
    except TypeError as error:
        name = f"{target.__module__}.{target.__qualname__}"
        raise RecipeError(
            f"{path}: {name} {error}. Given: {', '.join(map(str, values)) or 'nothing'}. "
            f"Expected some of {', '.join(signature.parameters)}. Next: change {path}.<key>."
        ) from error
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # an annotation that exists for type checkers only
        return
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise RecipeError(
                f"{sources[name]} is {list(value) if isinstance(value, tuple) else repr(value)}, expected {_spell(hints[name])}. "
                f"Next: set {sources[name]} to such a value."
            )


def _spell(hint: Any) -> str:
    """What a value may be, in words of those who write configs."""
    kind, inner = get_origin(hint) or hint, [_spell(item) for item in get_args(hint) if item is not Ellipsis]
    if kind is Literal:
        return " or ".join(map(str, get_args(hint)))
    if kind in (Union, UnionType):
        return " or ".join(inner)
    if kind in KINDS:
        return KINDS[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return f"{{<name>: {inner[1] if inner else '<value>'}, ...}}"
    if isinstance(kind, type) and issubclass(kind, Collection):
        return f"[{inner[0] if inner else '<value>'}, ...]"
    return kind.__name__ if isinstance(kind, type) else "a value"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value may be what an annotation says; false only where that is certain."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, choice) for choice in inner)
    if isinstance(value, Mapping | tuple):
        return _holds(value, kind, inner)
    if not isinstance(value, bool | int | float | str | None):
        return True
    if kind is Literal:
        return value in inner
    if inner and isinstance(kind, type) and issubclass(kind, Collection):
        return False
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (bool, int, str, NoneType):
        return type(value) is hint
    return True


def _holds(value: Mapping | tuple, kind: Any, inner: tuple[Any, ...]) -> bool:
    """`_fits` for lists (which arrive as tuples) and for mappings, with what is in them."""
    if kind in KINDS or not isinstance(kind, type) or not issubclass(kind, Collection):
        return kind not in KINDS
    if issubclass(kind, Mapping) or isinstance(value, Mapping):
        is_right = isinstance(value, Mapping) and issubclass(kind, Mapping)
        return is_right and (not inner or all(_fits(item, inner[1]) for item in value.values()))
    return not inner or (kind is tuple and inner[-1] is not Ellipsis) or all(_fits(item, inner[0]) for item in value)
