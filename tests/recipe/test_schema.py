"""What a recipe means where it says little, and that a loaded recipe does not change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kdcli.recipe.schema import Recipe


def recipe(*terms: dict[str, Any], **more: Any) -> Recipe:
    objective = list(terms) or [{"loss": "hard-labels"}]
    return Recipe.model_validate({"name": "mine", "stages": [{"name": "one", "objective": objective}], **more})


def test_terms_are_plain_unless_they_say_more() -> None:
    """What a paper adds to the plain form of a loss, its recipe says."""
    made = recipe({"loss": "soft-labels"}, {"loss": "hidden-mse"}, {"loss": "hidden-cosine"}, {"loss": "relation-kl"})
    soft, hidden, cosine, relation = (term.model_dump(by_alias=True) for term in made.stages[0].objective)
    teachers = {"name": None, "weight": 1.0, "teachers": None, "teacher_reduction": "mean"}
    layers = {**teachers, "layers": None, "layer_reduction": "sum"}
    assert soft == {
        **teachers,
        "loss": "soft-labels",
        "divergence": "cross-entropy",
        "temperature": 1.0,
        "temperature_squared": False,
        "weighting": "uniform",
        "normalise_weights": False,
        "scale": "none",
        "unlabelled_weighting": None,
        "unlabelled_scale": None,
        "min_uncertainty": 0.0,
        "draw": None,
    }
    assert hidden == {**layers, "loss": "hidden-mse", "tokens": "all", "normalise": False, "projection": "auto"}
    assert cosine == {**layers, "loss": "hidden-cosine", "tokens": "cls", "projection": "auto"}
    assert relation == {
        **layers,
        "loss": "relation-kl",
        "layers": "top",
        "relations": ["queries", "keys", "values"],
        "relation_heads": "auto",
    }


def test_recipe_is_plain_unless_it_says_more() -> None:
    made = recipe()
    (stage,) = made.stages
    assert (made.layers, made.assistants, made.student.size) == ("uniform", [], None)
    assert (made.student.init.source, made.student.init.layers, made.student.init.weights) == (
        "first-teacher",
        "first",
        "pretrained",
    )
    assert (made.teachers.cofinetune.pooling, made.teachers.cofinetune.which, made.teachers.out_of_fold) == (
        "attention",
        "bare",
        None,
    )
    assert (stage.expand, stage.until, stage.freeze, stage.learning_rate, stage.warmup, stage.schedule) == (
        None,
        None,
        [],
        None,
        None,
        None,
    )
    assert (made.training.optimizer.name, made.training.layer_decay, made.training.early_stopping) == ("adamw", 1.0, None)


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


@pytest.mark.parametrize("layers", ["uniform", "last", "matched", [1, 3], [2]])
def test_layers_to_copy_are_a_name_or_a_list(layers: object) -> None:
    assert recipe(student={"init": {"layers": layers}}).student.init.layers == layers


@pytest.mark.parametrize(
    ("term", "label"),
    [({"loss": "hidden-mse"}, "hidden-mse"), ({"loss": "hidden-mse", "name": "embeddings-mse"}, "embeddings-mse")],
)
def test_term_is_called_by_its_name_or_by_its_loss(term: dict[str, Any], label: str) -> None:
    assert recipe(term).stages[0].objective[0].label == label


@pytest.mark.parametrize(
    ("terms", "by_error"),
    [
        ([{"loss": "soft-labels"}], False),
        ([{"loss": "soft-labels", "weighting": "agreement", "scale": "agreement"}], False),
        ([{"loss": "soft-labels", "weighting": {"bert": 1}}], False),
        ([{"loss": "soft-labels", "weighting": "inverse-error"}], True),
        ([{"loss": "hard-labels"}, {"loss": "soft-labels", "weighting": "softmax-error"}], True),
        ([{"loss": "soft-labels", "scale": "correctness"}], True),
        ([{"loss": "soft-labels", "scale": "correctness", "weight": 0}, {"loss": "hard-labels"}], False),
    ],
)
def test_weights_by_error_are_seen_in_terms_that_are_not_switched_off(terms: list[dict[str, Any]], by_error: bool) -> None:
    assert recipe(*terms).weights_by_error() is by_error


def test_terms_of_weight_zero_do_not_count() -> None:
    made = recipe({"loss": "hard-labels"}, {"loss": "soft-labels", "weight": 0})
    assert [term.label for term in made.terms()] == ["hard-labels"]
    assert not made.needs_teachers()


@pytest.mark.parametrize(
    "changed",
    [
        {"training": {"batch_size": True}},
        {"training": {"batch_size": 16.0}},
        {"training": {"batch_size": "16"}},
        {"training": {"learning_rate": "1e-3"}},
        {"training": {"learning_rate": True}},
        {"training": {"max_length": False}},
        {"name": 3},
        {"summary": None},
        {"layers": {"bert": {True: 1}}},
        {"layers": {"bert": {1: True}}},
        {"layers": {"bert": {"1": 2}}},
        {"student": {"init": {"layers": [True]}}},
        {"student": {"size": 4}},
        {"assistants": [8]},
        {"assistants": "8L"},
        {"teachers": {"out_of_fold": True}},
        {"teachers": {"labels": {"bert": [0, 1]}}},
    ],
)
def test_values_of_another_type_are_not_bent(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe(**changed)


@pytest.mark.parametrize(
    "term",
    [
        {"loss": "hard-labels", "weight": True},
        {"loss": "hard-labels", "weight": "1"},
        {"loss": "soft-labels", "temperature_squared": 1},
        {"loss": "soft-labels", "weighting": {"bert": True}},
        {"loss": "hidden-mse", "normalise": "yes"},
        {"loss": "relation-kl", "relation_heads": True},
        {"loss": "relation-kl", "relation_heads": 4.0},
        {"loss": "attention-kl", "heads": {"bert": {1: True}}},
        {"loss": "random-layers", "width": 8.0},
        {"loss": "relational", "group": 2},  # angles need three samples
    ],
)
def test_values_of_another_type_are_not_bent_in_terms(term: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe(term)


def test_whole_numbers_are_numbers() -> None:
    made = recipe({"loss": "hard-labels", "weight": 2}, training={"learning_rate": 1, "clip_norm": 5})
    assert made.training.learning_rate == 1.0
    assert made.stages[0].objective[0].weight == 2.0
