"""Every kdcli command that the documentation shows is one that the command line takes; every recipe block loads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from kdcli.cli.app import app
from kdcli.evaluation.document import AgreementTable, Evaluation, GateResult, ModelScore
from kdcli.evaluation.significance import ModelDifference
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


def test_the_workflow_in_the_documentation_runs_commands_that_parse() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "runs-on" in text]
    steps = yaml.safe_load(block)["jobs"]["student"]["steps"]
    commands = [step["run"] for step in steps if step.get("run", "").startswith("kdcli ")]
    assert [command.split()[1] for command in commands] == ["distill", "evaluate", "export"]
    for command in commands:
        _, name, *words = shlex.split(command)
        typer.main.get_group(app).commands[name].make_context(name, list(words))


def test_every_field_of_the_document_is_documented() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for part in (Evaluation, ModelScore, ModelDifference, AgreementTable, GateResult):
        for field in part.model_json_schema(mode="serialization")["properties"]:
            assert f"`{field}" in page or field == "metric", f"{part.__name__}.{field}"


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


def test_every_file_that_the_architecture_names_is_there_and_every_room_is_named() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:kdcli|recipes)/[\w/.]+)`", page))
    assert len(named) > 30
    examples = {name for name in named if "NAME" in name}
    assert [name for name in sorted(named - examples) if not (ROOT / name).exists()] == []
    rooms = {f"kdcli/{path.name}/" for path in (ROOT / "kdcli").iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= named
