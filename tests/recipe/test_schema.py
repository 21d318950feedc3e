"""What a recipe means where it says little, and that a loaded recipe does not change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kdcli.recipe.schema import Projection, Recipe


def recipe(*terms: dict[str, Any], **more: Any) -> Recipe:
    objective = list(terms) or [{"loss": "hard-labels"}]
    return Recipe.model_validate({"name": "mine", "stages": [{"name": "one", "objective": objective}], **more})


def test_defaults_are_those_of_the_papers() -> None:
    made = recipe({"loss": "soft-labels"}, {"loss": "hidden-mse"})
    soft, hidden = (term.model_dump() for term in made.stages[0].objective)
    assert soft == {
        "loss": "soft-labels", "weight": 1.0, "temperature": 1.0, "temperature_squared": False, "weighting": "inverse-error"
    }  # fmt: skip
    assert hidden["projection"] == Projection(side="teacher", share="per-layer").model_dump()
    assert made.layers == "uniform"
    assert made.student.init.source == "first-teacher"
    assert made.teachers.cofinetune.pooling == "attention"


def test_missing_projection_means_one_and_null_means_none() -> None:
    asked, without = recipe({"loss": "hidden-mse"}, {"loss": "hidden-mse", "projection": None}).stages[0].objective
    assert asked.model_dump()["projection"] is not None
    assert without.model_dump()["projection"] is None


@pytest.mark.parametrize(
    ("losses", "needed"),
    [(["hard-labels"], False), (["soft-labels"], True), (["hard-labels", "hidden-mse"], True)],
)
def test_teachers_are_needed_as_soon_as_one_term_looks_at_them(losses: list[str], needed: bool) -> None:
    assert recipe(*({"loss": loss} for loss in losses)).needs_teachers() is needed


def test_recipe_cannot_be_changed() -> None:
    made = recipe()
    with pytest.raises(ValidationError, match="frozen"):
        made.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        made.training.batch_size = 1  # type: ignore[misc]


def test_recipe_survives_being_written_and_read() -> None:
    made = recipe({"loss": "soft-labels"}, layers={"bert": {1: 3}, "roberta": "last"}, student={"init": {"from": "bert"}})
    assert Recipe.model_validate(made.model_dump(by_alias=True)) == made
    assert Recipe.model_validate_json(made.model_dump_json(by_alias=True)) == made


@pytest.mark.parametrize("layers", ["uniform", "last", [1, 3], [2]])
def test_layers_to_copy_are_a_name_or_a_list(layers: object) -> None:
    assert recipe(student={"init": {"layers": layers}}).student.init.layers == layers


def test_every_key_is_described() -> None:
    def undescribed(schema: dict[str, Any]) -> list[str]:
        blocks = {**schema["$defs"], "Recipe": schema}
        return [
            f"{block}.{key}"
            for block, content in blocks.items()
            for key, value in content.get("properties", {}).items()
            if "description" not in value and "$ref" not in value and key != "loss"
        ]

    assert all(block["description"] for block in Recipe.model_json_schema()["$defs"].values())
    assert undescribed(Recipe.model_json_schema()) == []
