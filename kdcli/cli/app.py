"""The command line: one file per command; heavy imports happen inside the commands."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kdcli import __version__
from kdcli.cli.commands import Group, ModuleCommands


class _Commands(Group):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        commands: Any = ModuleCommands("distill", "cofinetune", "evaluate", "export", "recipe")
        self.commands = commands


app = typer.Typer(
    name="kdcli",
    cls=_Commands,
    help="Compress the transformer encoders you already have: several teachers teach one small student.",
    epilog="Start here, offline, in any folder:\n\n  kdcli distill --teachers bert,roberta --student 4L\n\n  kdcli evaluate\n\n"
    "  kdcli export --onnx",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdcli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass
