"""What a key of the recipe language allows, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdcli.recipe.loss import LossBlock

_SIGNS = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}
_PLAIN: dict[Any, str] = {Any: "any value", int: "whole number", float: "number", str: "text", bool: "true / false"}
_BLOCKS = {
    "Schedule": "a schedule {from: …, to: …}",
    "Projection": "a projection {side: …}",
    "Range": "a range {from: …, to: …}",
}


def allowed(annotation: Any, limits: Iterable[Any] = ()) -> list[str]:
    """The kinds of values that an annotation allows, such as ``number > 0`` and ``a schedule``, each once.

    Args:
        annotation: of a field.
        limits: further constraints, as pydantic keeps them beside the annotation.
    """
    more = "".join(f" {limit}" for limit in _limits(limits))
    return [name if name == "null" else name + more for name in dict.fromkeys(_names(annotation))]


def _names(annotation: Any) -> Iterator[str]:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        limits = "".join(f" {limit}" for limit in _limits(metadata))
        yield from (name + limits for name in _names(inner))
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from _names(member)
    elif origin is Literal:
        yield " / ".join(f"`{choice}`" for choice in get_args(annotation))
    elif origin is list:
        inside = " or ".join(_names(get_args(annotation)[0]))
        yield "list of " + {"a loss": "losses", "a block": "stages"}.get(inside, inside)
    elif origin is dict:
        key, value = get_args(annotation)
        yield f"map of {' or '.join(_names(key))}: {' or '.join(_names(value))}"
    elif annotation in (NoneType, None):
        yield "null"
    elif annotation is LossBlock:
        yield "a loss"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield _BLOCKS.get(annotation.__name__, "a block")
    else:
        yield _PLAIN[annotation]


def _limits(metadata: Iterable[Any]) -> Iterator[str]:
    for limit in metadata:
        if isinstance(limit, FieldInfo):
            yield from _limits(limit.metadata)
        sign = _SIGNS.get(type(limit).__name__)
        if sign is not None:
            yield f"{sign} {getattr(limit, type(limit).__name__.lower()):g}"
