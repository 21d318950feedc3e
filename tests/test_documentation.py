"""Every kdcli command that the documentation shows is one that the command line takes; every recipe block loads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from kdcli.cli.main import app
from kdcli.recipe.loading import loads

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        (page.name, line.split("#")[0].strip())
        for page in PAGES
        for block in re.findall(r"```(?:sh|bash|)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("kdcli ")
    }
)
RECIPES = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "stages:" in block
]


def test_the_documentation_shows_commands_and_recipes() -> None:
    assert len(COMMANDS) >= 5
    assert len(RECIPES) >= 1


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_command_in_the_documentation_parses(page: str, command: str) -> None:
    found: Any = typer.main.get_group(app)
    _, name, *words = shlex.split(command.split(" > ")[0])
    found = found.commands[name]
    while hasattr(found, "commands"):
        name, *words = words
        found = found.commands[name]
    found.make_context(name, list(words))


@pytest.mark.parametrize(("page", "text"), RECIPES)
def test_recipe_in_the_documentation_loads(page: str, text: str) -> None:
    assert loads(text, page).recipe.stages


def test_readme_names_the_two_set_up_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ("make demo", "make test"):
        assert command in readme
        assert f"\n{command.split()[1]}:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
