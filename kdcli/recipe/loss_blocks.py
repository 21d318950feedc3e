"""The losses that a recipe may name: every module of ``kdcli/recipe/losses/`` is looked at, and what others have registered."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any, TypeVar, Union

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_json

from kdcli.recipe.loss import LossBlock

PACKAGE = "kdcli.recipe.losses"
_Kind = TypeVar("_Kind", bound=type[LossBlock])
_registered: dict[str, type[LossBlock]] = {}


def registered(block: _Kind) -> _Kind:
    """Let recipes name a loss; a decorator of its block.

    Raises:
        TypeError: the block does not say what it needs of the models' insides, or another one has its name.
    """
    name = block.loss_name()
    if block.needs is LossBlock.needs:
        raise TypeError(f"{block.__name__} has to define needs(): what the loss {name!r} must see of the models' insides")
    if _registered.get(name, block) is not block:
        raise TypeError(f"{block.__name__} cannot be called {name!r}: {_registered[name].__name__} is")
    _registered[name] = block
    return block


def withdraw(block: type[LossBlock]) -> None:
    """Take a loss back that was registered, so that no recipe may name it any more."""
    del _registered[block.loss_name()]


def losses() -> tuple[type[LossBlock], ...]:
    """The blocks of all losses, in the order in which they are listed."""
    _import_all()
    return tuple(sorted(_registered.values(), key=lambda block: (block.listed, block.loss_name())))


@cache
def _import_all() -> None:
    for module in iter_modules(import_module(PACKAGE).__path__):
        import_module(f"{PACKAGE}.{module.name}")


@cache
def _union(blocks: tuple[type[LossBlock], ...]) -> TypeAdapter[LossBlock]:
    """One of these blocks, told apart by its key ``loss``."""
    one_of_them: Any = Annotated[Union[blocks], Field(discriminator="loss")]  # noqa: UP007
    return TypeAdapter(one_of_them)


def _validated(value: Any, info: core_schema.ValidationInfo) -> LossBlock:
    union = _union(losses())
    return union.validate_json(to_json(value)) if info.mode == "json" else union.validate_python(value)


class _Registered:
    """Lets pydantic read a loss as one of those that are registered at that time, by its key ``loss``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_validated)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_union(losses()).core_schema)


Loss = Annotated[LossBlock, _Registered()]
