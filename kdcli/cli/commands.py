"""The classes of the commands, for a quick start: each is imported when it is asked for, and pydantic when it is needed."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kdcli.cli.session import errors_as_exit_codes

_LONGEST = 4000  # the longest path that Linux takes has 4,096 bytes
_LONGEST_NAME = 255
_FREE = {"set_values"}  # YAML, which may have lines
_MAY_BE_EMPTY = {"text_pair_column"}


class Command(TyperCommand):
    """A command whose ``--help`` is False, not None, where it was not given: typer imports pydantic to look at a None."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the command, ``--help`` among them."""
        return _with_plain_flags(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the command line; an empty path would be read as the current folder."""
        with errors_as_exit_codes():
            _refuse_empty(self.get_params(ctx), args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, if the values of its parameters are such that anything could be made of them."""
        with errors_as_exit_codes():
            refuse_unusable(self.get_params(ctx), ctx.params)
        return super().invoke(ctx)


class Group(TyperGroup):
    """As :class:`Command`, for commands that have commands below them."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the group, ``--help`` and those for completion among them."""
        return _with_plain_flags(super().get_params(ctx))


def refuse_unusable(parameters: Iterable[Any], values: Mapping[str, Any]) -> None:
    """Refuse values that no parameter of any command can mean, before anything looks at them.

    Numbers that are not finite; texts and paths that are empty, very long, not of Unicode, or hold control characters, which a
    terminal would obey and a file name should not have.

    Raises:
        RequestError: with every such value.
    """
    from kdcli.errors import Problem, RequestError

    problems = []
    for parameter in parameters:
        value = values.get(parameter.name)
        for single in value if isinstance(value, list | tuple) else [value]:
            what = _unusable(single, parameter)
            if what:
                shown = str(single).encode("unicode_escape").decode("ascii")
                problems.append(Problem(f"{parameter.opts[0]} {shown[:80]}{'…' if len(shown) > 80 else ''}".rstrip(), what))
    if problems:
        raise RequestError(problems)


def _refuse_empty(parameters: Iterable[Any], arguments: list[str]) -> None:
    """Refuse ``--out ""`` and ``--out=``, as a script writes them whose variable is not set."""
    from kdcli.errors import Problem, RequestError

    names = {name for one in parameters if one.name not in _MAY_BE_EMPTY for name in one.opts if name.startswith("-")}
    for name, value in pairwise([*arguments, " "]):
        if (name in names and value == "") or name.removesuffix("=") in names - {name}:
            raise RequestError(Problem(name.removesuffix("="), "is empty"))


def _unusable(value: Any, parameter: Any) -> str | None:
    """What is wrong with a single value, if anything is."""
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not a number"
    if not isinstance(value, str | Path) or isinstance(value, Enum):
        return None
    text = str(value)
    if not text.strip() and parameter.name not in _MAY_BE_EMPTY:
        return "is empty"
    if len(text) > _LONGEST and parameter.name not in _FREE:
        return f"is very long ({len(text):,} characters)"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "is not valid Unicode"
    if isinstance(value, Path) and any(len(part.encode()) > _LONGEST_NAME for part in value.parts):
        return f"has a name that is too long for a file (more than {_LONGEST_NAME} bytes)"
    allowed = "\n\t" if parameter.name in _FREE else ""
    if any(unicodedata.category(character) == "Cc" and character not in allowed for character in text):
        return "holds control characters"
    return None


def _with_plain_flags(parameters: Iterable[Any]) -> Iterable[Any]:
    for parameter in parameters:
        if not parameter.expose_value and parameter.default is None and getattr(parameter, "is_flag", False):
            parameter.default = False
    return parameters


class ModuleCommands(Mapping[str, Any]):
    """Commands that are modules of this package, each imported when it is looked up.

    A module has an ``app`` with commands of its own, or a function of its name and ``EXAMPLES``.
    """

    def __init__(self, *names: str) -> None:
        self._found: dict[str, Any] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Any:
        if self._found[name] is None:
            self._found[name] = _command(name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _command(name: str) -> Any:
    module = import_module(f"kdcli.cli.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name, cls=Command, epilog=module.EXAMPLES)(getattr(module, name))
    return typer.main.get_command(app)
