"""The classes of the commands, for a quick start: each is imported when it is asked for, and pydantic when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose ``--help`` is False, not None, where it was not given: typer imports pydantic to look at a None."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the command, ``--help`` among them."""
        return _with_plain_flags(super().get_params(ctx))


class Group(TyperGroup):
    """As :class:`Command`, for commands that have commands below them."""

    def get_params(self, ctx: Any) -> Any:
        """The parameters of the group, ``--help`` and those for completion among them."""
        return _with_plain_flags(super().get_params(ctx))


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
