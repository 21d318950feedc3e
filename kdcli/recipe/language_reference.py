"""The recipe language written down from the code: a JSON Schema for editors, and every key with its meaning for people.

``python -m kdcli.recipe.language_reference`` writes both into a checkout (``recipes/recipe.schema.json``, ``docs/recipes.md``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kdcli.recipe import schema
from kdcli.recipe.allowed_values import allowed
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.catalogue import SCHEMA, remarks, shipped
from kdcli.recipe.loading import load
from kdcli.recipe.loss import LossBlock
from kdcli.recipe.loss_blocks import losses
from kdcli.recipe.losses.projection import Projection
from kdcli.recipe.schema import Recipe

_BLOCKS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("A recipe", Recipe),
    ("teachers", schema.Teachers),
    ("teachers.cofinetune", schema.Cofinetune),
    ("assistants", schema.Assistant),
    ("student", schema.Student),
    ("student.init", schema.StudentInit),
    ("augmentation", schema.Augmentation),
    ("stages", schema.Stage),
    ("stages.until", schema.Until),
    ("training", schema.Training),
    ("training.optimizer", schema.Optimizer),
    ("A projection", Projection),
    ("A value that changes over a stage", Schedule),
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a recipe."""
    found = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "kdcli recipe"}


def schema_text() -> str:
    """The JSON Schema as it is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def key_tables() -> str:
    """Every key of the language as Markdown tables: meaning, type, default."""
    parts = []
    for title, block in _BLOCKS:
        heading = f"### `{title}`" if title[0].islower() else f"### {title}"
        parts.append(f"{heading}\n\n{_about(block)}\n\n{_table(block.model_fields)}")
    common = LossBlock.model_fields
    parts.append(f"### Losses: what all of them have\n\n{_table(common)}")
    for loss in losses():
        own = {key: info for key, info in loss.model_fields.items() if key not in common and key != "loss"}
        parts.append(f"### `loss: {loss.loss_name()}`\n\n{_about(loss)}" + (f"\n\n{_table(own)}" if own else ""))
    return "\n\n".join(parts)


def recipe_table() -> str:
    """The shipped recipes as a Markdown table."""
    lines = ["| recipe | what it does | from |", "|---|---|---|"]
    for name, path in shipped().items():
        recipe = load(path).recipe
        lines.append(f"| `{name}` | {recipe.summary} | {recipe.paper} |")
    return "\n".join(lines)


def deviations_table() -> str:
    """Where the shipped recipes deviate from their papers, as a Markdown table."""
    lines = ["| recipe | deviates from its paper | left open by its paper, and chosen here |", "|---|---|---|"]
    for name, path in shipped().items():
        said = remarks(path)
        if any(said.values()):
            lines.append(f"| `{name}` | {'; '.join(said['deviates'])} | {'; '.join(said['open'])} |")
    return "\n".join(lines)


def _about(block: type[BaseModel]) -> str:
    return (block.__doc__ or "").strip().splitlines()[0].replace("``", "`")


def _table(fields: dict[str, FieldInfo]) -> str:
    lines = ["| key | meaning | type | default |", "|---|---|---|---|"]
    for name, info in fields.items():
        cells = (f"`{info.alias or name}`", (info.description or "").replace("``", "`"), _type(info), _default(info))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _type(info: FieldInfo) -> str:
    return " or ".join(allowed(info.annotation, info.metadata))


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        made = info.default_factory()  # type: ignore[call-arg]
        return "" if isinstance(made, BaseModel) else f"`{made}`"
    if info.default is PydanticUndefined:
        return "(must be given)"
    if isinstance(info.default, float):
        return f"`{info.default:g}`"
    if info.default == "":
        return "(empty)"
    return f"`{json.dumps(info.default, ensure_ascii=False)}`".replace('"', "")


def write(root: Path) -> None:
    """Write the schema and the tables into a checkout."""
    (root / "recipes" / SCHEMA).write_text(schema_text(), encoding="utf-8")
    page = root / "docs" / "recipes.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """The page with what stands between its marks written anew."""
    for name, text in (("recipes", recipe_table()), ("deviations", deviations_table()), ("keys", key_tables())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        _, _, behind = rest.partition(end)
        page = f"{before}{begin}\n\n{text}\n\n{end}{behind}"
    return page


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2])
