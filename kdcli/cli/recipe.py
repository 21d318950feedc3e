"""``kdcli recipe list``, ``show``, ``check`` and ``schema``."""

from __future__ import annotations

from typing import Annotated

import typer

from kdcli.cli import options
from kdcli.cli.commands import Command, Group
from kdcli.cli.session import errors_as_exit_codes, print_document, results, session

app = typer.Typer(
    name="recipe",
    cls=Group,
    help="The recipes: which there are, what they say, and whether yours is right for your models.",
    epilog="Examples:\n\n  kdcli recipe list\n\n  kdcli recipe show internal-stacked > mine.yaml\n\n"
    "  kdcli recipe check mine.yaml --teachers bert=./my-bert --student 4L",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_LIST = "Examples:\n\n  kdcli recipe list\n\n  kdcli recipe list --json"
_SHOW = "Examples:\n\n  kdcli recipe show mt-bert\n\n  kdcli recipe show internal-stacked > mine.yaml"
_CHECK = """Examples:

  kdcli recipe check mine.yaml

  kdcli recipe check mine.yaml --teachers bert=./my-bert,roberta=./my-roberta --student 4L --set stages.0.epochs=3
"""
_SCHEMA = (
    "Examples:\n\n  kdcli recipe schema > recipe.schema.json\n\n  kdcli recipe schema | python -m json.tool\n\n"
    "First line of a recipe, for editors: # yaml-language-server: $schema=recipe.schema.json"
)


@app.command("list", cls=Command, epilog=_LIST)
def list_recipes(json_output: options.Json = False) -> None:
    """List the shipped recipes."""
    with errors_as_exit_codes():
        from kdcli.recipe.catalogue import DEFAULT_RECIPE, opening, shipped

        about = {name: opening(path) for name, path in shipped().items()}
        if json_output:
            import json

            rows = [
                {"name": name, "summary": data["summary"], "paper": data.get("paper", ""), "default": name == DEFAULT_RECIPE}
                for name, data in about.items()
            ]
            print_document(json.dumps(rows, indent=2, ensure_ascii=False))
            return
        from kdcli.cli.rendering import recipe_table, show

        console = results()
        show(console, recipe_table(about, DEFAULT_RECIPE, console.width))


@app.command("show", cls=Command, epilog=_SHOW)
def show_recipe(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a YAML file.")],
) -> None:
    """Print a recipe as it is written; highlighted on a terminal."""
    with errors_as_exit_codes():
        from kdcli.recipe.catalogue import find, read

        text = read(find(name, "recipe show"))
        console = results()
        if not console.is_terminal:
            print_document(text.rstrip("\n"))
            return
        from rich.syntax import Syntax

        console.print(Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True))


@app.command("check", cls=Command, epilog=_CHECK)
def check(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    teachers: Annotated[
        str | None,
        typer.Option("--teachers", help="As for distill; their config.json is all that is read."),
    ] = None,
    student: Annotated[str | None, typer.Option("--student", help="4L, 4L-312H, 4L-312H-12A, or a checkpoint.")] = None,
    set_values: options.Set = None,
) -> None:
    """Say everything that is wrong with a recipe, with file and line; with teachers and a student, draw what it will do.

    Exit code 0 if it is right, 2 if not. No weights are loaded and no data is read.
    """
    with session(quiet=True) as events:
        from kdcli.errors import Problem, RequestError
        from kdcli.recipe import loading
        from kdcli.recipe.catalogue import find

        loaded = loading.load(find(recipe, "recipe check"), options.overrides(set_values, {}))
        if teachers is None:
            if student is not None:
                raise RequestError(Problem("--student", "needs --teachers as well, to hold the recipe against"))
            print_document(f"{recipe}: the recipe is right in itself; --teachers and --student hold it against models")
            return
        from kdcli.cli.plan_view import check_view
        from kdcli.cli.rendering import show
        from kdcli.models.checkpoints import parse_references
        from kdcli.plan.resolve import check_recipe

        hops, depths = check_recipe(loaded, parse_references(teachers, "--teachers"), student)
        events.emit_finished()
        show(results(), *check_view(recipe, hops, depths))


@app.command("schema", cls=Command, epilog=_SCHEMA)
def schema(
    sweep: Annotated[bool, typer.Option("--sweep", help="That of the files of kdcli distill --sweep.")] = False,
) -> None:
    """Print the JSON Schema of a recipe, with which editors complete and check it."""
    with errors_as_exit_codes():
        from kdcli.recipe.catalogue import SCHEMA, SWEEP_SCHEMA, schema_file

        name = SWEEP_SCHEMA if sweep else SCHEMA
        print_document(schema_file(name).read_text(encoding="utf-8").rstrip("\n"))
