"""Schedules over layers become stages: what each is called, what it minimises, and on which layers."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.plan.desk import Maps, Shelf, labels_of, maps_of

RECIPE = """\
name: mine
layers: uniform
stages:
  - name: internal
    expand: HOW
    epochs: 1
    until: {loss: hidden-cosine, below: 0.02}
    objective:
      - {loss: attention-kl}
      - {loss: hidden-cosine}
      - {loss: soft-labels}
  - name: classification
    epochs: 4
    objective:
      - {loss: soft-labels}
"""
How = Literal["progressive", "stacked"]

# j·T/K with halves rounded up; the BERT has 4 layers, the RoBERTa 6
PROGRESSIVE: dict[str, list[Maps]] = {
    "2L": [{"bert": {1: 2}, "roberta": {1: 3}}, {"bert": {2: 4}, "roberta": {2: 6}}],
    "3L": [{"bert": {1: 1}, "roberta": {1: 2}}, {"bert": {2: 3}, "roberta": {2: 4}}, {"bert": {3: 4}, "roberta": {3: 6}}],
    "4L": [
        {"bert": {1: 1}, "roberta": {1: 2}},
        {"bert": {2: 2}, "roberta": {2: 3}},
        {"bert": {3: 3}, "roberta": {3: 5}},
        {"bert": {4: 4}, "roberta": {4: 6}},
    ],
}
STACKED: dict[str, list[Maps]] = {
    "2L": [{"bert": {1: 2}, "roberta": {1: 3}}, {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}}],
    "3L": [
        {"bert": {1: 1}, "roberta": {1: 2}},
        {"bert": {1: 1, 2: 3}, "roberta": {1: 2, 2: 4}},
        {"bert": {1: 1, 2: 3, 3: 4}, "roberta": {1: 2, 2: 4, 3: 6}},
    ],
    "4L": [
        {"bert": {1: 1}, "roberta": {1: 2}},
        {"bert": {1: 1, 2: 2}, "roberta": {1: 2, 2: 3}},
        {"bert": {1: 1, 2: 2, 3: 3}, "roberta": {1: 2, 2: 3, 3: 5}},
        {"bert": {1: 1, 2: 2, 3: 3, 4: 4}, "roberta": {1: 2, 2: 3, 3: 5, 4: 6}},
    ],
}
CASES = [
    (how, student, names)
    for how in ("progressive", "stacked")
    for student in ("2L", "3L", "4L")
    for names in (("bert",), ("bert", "roberta"))
]


def recipe(how: How) -> str:
    return RECIPE.replace("HOW", how)


@pytest.mark.parametrize(("how", "student", "names"), CASES)
def test_one_stage_per_student_layer_from_the_bottom_up_with_its_maps(
    how: How, student: str, names: tuple[str, ...], shelf: Shelf
) -> None:
    teachers = {name: path for name, path in shelf.two().items() if name in names}
    *internal, last = shelf.stages(recipe(how), teachers=teachers, student=student)
    expected = {"progressive": PROGRESSIVE, "stacked": STACKED}[how][student]
    expected = [{name: pairs for name, pairs in maps.items() if name in names} for maps in expected]
    assert [stage.name for stage in internal] == [f"internal-{row}" for row in range(1, len(expected) + 1)]
    assert [maps_of(stage) for stage in internal] == [
        {"attention-kl": maps, "hidden-cosine": maps, "soft-labels": {}} for maps in expected
    ]
    assert [[term.teachers for term in stage.terms] for stage in internal] == [[list(names)] * 3] * len(internal)
    assert labels_of([last]) == [("classification", ["soft-labels"])]


@pytest.mark.parametrize("how", ["progressive", "stacked"])
def test_every_stage_has_what_the_recipe_gives_to_all_of_them(how: How, shelf: Shelf) -> None:
    flags = ["stages.0.learning_rate=3e-4", "stages.0.warmup=0.3", "stages.0.schedule=constant", "stages.0.freeze=[embeddings]"]
    flags.append("training.batch_size=32")
    *internal, last = shelf.stages(recipe(how), *flags, student="3L")
    assert len(internal) == 3
    for stage in internal:
        # 1,000 rows in batches of 32 are 32 steps
        assert (stage.epochs, stage.steps, stage.warmup, stage.schedule) == (1.0, 32, 0.3, "constant")
        assert stage.learning_rates["body"] == 3e-4
        assert stage.freeze == ["embeddings"]
        assert stage.until is not None
        assert (stage.until.loss, stage.until.below) == ("hidden-cosine", 0.02)
    assert (last.until, last.freeze, last.steps) == (None, [], 128)


def test_heads_and_projections_stay_with_the_terms_of_every_stage(shelf: Shelf) -> None:
    for stage in shelf.stages(recipe("stacked"), "stages.0.objective.0.heads=mean", student="2L")[:2]:
        attention, cosine, _ = stage.terms
        assert attention.heads == {"bert": "mean", "roberta": "mean"}
        assert cosine.projected == {"bert": None, "roberta": "student"}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (
            "progressive",
            [
                ("internal-1", {"bert": {1: 1}}),
                ("internal-2", {"roberta": {2: 5}}),
                ("internal-3", {"bert": {3: 4}, "roberta": {3: 6}}),
            ],
        ),
        (
            "stacked",
            [
                ("internal-1", {"bert": {1: 1}}),
                ("internal-2", {"bert": {1: 1}, "roberta": {2: 5}}),
                ("internal-3", {"bert": {1: 1, 3: 4}, "roberta": {2: 5, 3: 6}}),
            ],
        ),
    ],
)
def test_teachers_whose_maps_name_other_layers_come_and_go(how: How, expected: list[tuple[str, Maps]], shelf: Shelf) -> None:
    text = recipe(how).replace("layers: uniform", "layers: {roberta: {3: 6, 2: 5}, bert: {1: 1, 3: 4}}")
    stages = shelf.stages(text, student="3L")[:-1]
    assert [(stage.name, maps_of(stage)["hidden-cosine"]) for stage in stages] == expected
    for stage, (_, maps) in zip(stages, expected, strict=True):
        attention, cosine, soft = stage.terms
        assert attention.layers == maps
        assert attention.teachers == cosine.teachers == list(maps)
        assert soft.teachers == ["bert", "roberta"]


def test_layer_that_no_map_names_has_no_stage(shelf: Shelf) -> None:
    text = recipe("progressive").replace("layers: uniform", "layers: {bert: {1: 1, 4: 4}}")
    stages = shelf.stages(text, teachers=shelf.one(), student="4L")
    assert [stage.name for stage in stages] == ["internal-1", "internal-4", "classification"]


def test_embeddings_come_first(shelf: Shelf) -> None:
    text = recipe("stacked").replace("layers: uniform", "layers: {bert: {2: 4, 0: 0}}").replace("attention-kl", "hidden-mse")
    stages = shelf.stages(text, teachers=shelf.one())
    assert [(stage.name, maps_of(stage)["hidden-mse"]) for stage in stages[:-1]] == [
        ("internal-0", {"bert": {0: 0}}),
        ("internal-2", {"bert": {0: 0, 2: 4}}),
    ]


def test_terms_with_maps_of_their_own_are_there_in_the_stages_of_their_layers(shelf: Shelf) -> None:
    text = recipe("progressive").replace("attention-kl}", "attention-kl, layers: {bert: {2: 3}}}")
    first, second, _ = shelf.stages(text, teachers=shelf.one())
    assert maps_of(first) == {"hidden-cosine": {"bert": {1: 2}}, "soft-labels": {}}
    assert maps_of(second) == {"attention-kl": {"bert": {2: 3}}, "hidden-cosine": {"bert": {2: 4}}, "soft-labels": {}}


def test_many_to_one_maps_expand_by_the_students_layers(shelf: Shelf) -> None:
    text = recipe("stacked").replace("layers: uniform", "layers: {bert: {1: 4, 2: 4}}")
    first, second, _ = shelf.stages(text, teachers=shelf.one())
    assert maps_of(first)["hidden-cosine"] == {"bert": {1: 4}}
    assert maps_of(second)["hidden-cosine"] == {"bert": {1: 4, 2: 4}}


def test_terms_of_weight_zero_are_in_no_stage(shelf: Shelf) -> None:
    *internal, _ = shelf.stages(recipe("stacked"), "stages.0.objective.2.weight=0")
    assert labels_of(internal) == [(f"internal-{row}", ["attention-kl", "hidden-cosine"]) for row in (1, 2)]


def test_until_names_a_loss_that_is_there_in_every_stage_or_the_recipe_is_refused(shelf: Shelf) -> None:
    """The rule of a stage without its loss could never be looked at."""
    text = recipe("progressive").replace("hidden-cosine}", "hidden-cosine, layers: top}")
    blamed = [problem.where.partition("  ")[2] for problem in shelf.problems(text, teachers=shelf.one())]
    if blamed:
        assert blamed == ["stages.0.until.loss"]
        return
    for stage in shelf.stages(text, teachers=shelf.one()):
        assert stage.until is None or stage.until.loss in [term.loss.label for term in stage.terms]


def test_stage_of_the_name_that_an_expanded_one_gets_is_refused(shelf: Shelf) -> None:
    """Logs and checkpoints tell stages apart by their names."""
    (problem,) = shelf.refused(recipe("stacked").replace("name: classification", "name: internal-2"))
    assert problem.where.startswith("mine.yaml:")
    assert "internal-2" in str(problem)


def test_stage_without_a_loss_on_layers_cannot_be_expanded(shelf: Shelf) -> None:
    (problem,) = shelf.refused(recipe("stacked"), "stages.1.expand=progressive")
    assert problem.where == "--set stages.1.expand=progressive  stages.1.expand"
    assert "no loss on layers" in problem.what
    assert problem.found == "soft-labels"


def test_losses_on_logits_of_samples_have_no_layers_to_expand_by(shelf: Shelf) -> None:
    text = "name: mine\nstages:\n  - {name: a, expand: stacked, objective: [{loss: relational, states: logits}]}\n"
    (problem,) = shelf.refused(text)
    assert problem.where == "mine.yaml:3  stages.0.expand"
