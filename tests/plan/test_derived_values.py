"""Values that a recipe leaves open: what they become, by what, and that written ones stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdcli.plan.derived_values import (
    RATE_FROM_SCRATCH,
    STUDENT_LENGTHS,
    TEACHER_LENGTHS,
    Circumstances,
    batch_size,
    copies,
    derived,
    student_rate,
    teacher_rate,
)
from kdcli.recipe.loading import loads
from kdcli.recipe.schema import AUTO, Stage
from kdcli.recipe.yaml_document import Override
from tests.plan.desk import Desk

OPEN = """\
name: mine
augmentation: {copies: auto}
stages:
  - name: distill
    objective:
      - {loss: hard-labels}
      - {loss: soft-labels}
training: {early_stopping: auto, evaluations_per_epoch: auto}
"""
TWO = """\
name: mine
stages:
  - name: layers
    expand: stacked
    objective:
      - {loss: hidden-mse}
  - name: labels
    objective:
      - {loss: soft-labels}
"""
ABOUT = Circumstances(rows=2000, labelled=1000, width=384, layers=3, teacher_widths={"wide": 768})


def test_everything_that_is_open_becomes_a_number_with_its_reason() -> None:
    loaded, told = derived(loads(OPEN, "mine.yaml"), ABOUT)
    recipe = loaded.recipe
    cofinetune, training = recipe.teachers.cofinetune, recipe.training
    assert {each.key: each.value for each in told} == {
        "augmentation.copies": recipe.augmentation.copies,
        "training.batch_size": training.batch_size,
        "training.learning_rate": training.learning_rate,
        "training.evaluations_per_epoch": training.evaluations_per_epoch,
        "training.early_stopping": training.early_stopping,
        "teachers.cofinetune.learning_rate": cofinetune.learning_rate,
        "teachers.cofinetune.epochs": cofinetune.epochs,
        "stages.0.epochs": recipe.stages[0].epochs,
    }
    assert all(isinstance(each.value, int | float) and each.why for each in told)
    assert loaded.document.place(("training", "batch_size")) == "derived by the plan"


def test_what_is_written_stays_and_the_recipe_that_was_given_too() -> None:
    flags = ["training.batch_size=7", "training.learning_rate=1e-3", "stages.0.epochs=2.5", "augmentation.copies=0"]
    flags += ["teachers.cofinetune.epochs=1", "teachers.cofinetune.learning_rate=2e-3", "training.early_stopping=9"]
    flags.append("training.evaluations_per_epoch=2")
    loaded = loads(OPEN, "mine.yaml", [Override.parse(flag) for flag in flags])
    same, told = derived(loaded, ABOUT)
    assert told == []
    assert same.recipe == loaded.recipe
    still_open = loads(OPEN, "mine.yaml")
    derived(still_open, ABOUT)
    assert still_open.recipe.stages[0].epochs == AUTO


def test_each_encoder_takes_the_rate_of_its_width_unless_it_was_given_one() -> None:
    about = replace(ABOUT, teacher_widths={"wide": 768, "narrow": 384, "small": 256, "other": 768})
    flags = ["teachers.cofinetune.learning_rates.small=3e-4"]
    loaded, told = derived(loads(OPEN, "mine.yaml", [Override.parse(flag) for flag in flags]), about)
    cofinetune = loaded.recipe.teachers.cofinetune
    assert cofinetune.learning_rate == teacher_rate(768)
    assert cofinetune.learning_rates == {"narrow": teacher_rate(384), "small": 3e-4}
    assert "teachers.cofinetune.learning_rates.narrow" in [each.key for each in told]
    fixed, _ = derived(loads(OPEN, "mine.yaml", [Override.parse("teachers.cofinetune.learning_rate=1e-4")]), about)
    assert fixed.recipe.teachers.cofinetune.learning_rates == {}


@pytest.mark.parametrize("rows", [10, 1000, 10_000, 60_000, 1_000_000])
def test_more_effort_is_more_epochs_and_more_rows_are_fewer(rows: int) -> None:
    for lengths in (STUDENT_LENGTHS, TEACHER_LENGTHS):
        quick, normal, thorough = (lengths[effort].epochs(rows) for effort in ("quick", "normal", "thorough"))
        assert 1 <= quick < normal < thorough
        assert lengths["normal"].epochs(rows) >= lengths["normal"].epochs(rows * 2)


def test_narrow_students_take_larger_steps_and_random_weights_no_smaller_ones() -> None:
    assert student_rate(312, False) >= student_rate(384, False) > student_rate(768, False) > student_rate(1024, False)
    assert all(student_rate(width, True) > student_rate(width, False) for width in (128, 384, 768, 1024))
    assert student_rate(2048, True) == RATE_FROM_SCRATCH  # below which the plan warns
    assert teacher_rate(384) > teacher_rate(768) > teacher_rate(1024)


def test_few_rows_are_small_batches_and_many_made_texts() -> None:
    assert batch_size(500) < batch_size(50_000)
    assert copies(500) > copies(5000) >= copies(100_000) == 0


def test_stages_that_leave_their_epochs_open_share_them() -> None:
    loaded, told = derived(loads(TWO, "mine.yaml"), ABOUT)
    whole = STUDENT_LENGTHS["normal"].epochs(ABOUT.rows)
    layers, labels = (stage.epochs for stage in loaded.recipe.stages)
    # three layers and the labels: four parts
    assert layers == labels == max(1, round(whole / 4))
    assert all(f"a part of {whole}" in each.why for each in told if each.key.startswith("stages"))
    one, _ = derived(loads(TWO, "mine.yaml", [Override.parse("stages.1.epochs=9")]), ABOUT)
    assert [stage.epochs for stage in one.recipe.stages] == [max(1, round(whole / 3)), 9]


@pytest.mark.parametrize(("epochs", "evaluations"), [(1, 1), (15, 15), (30, 15), (90, 15)])
def test_a_long_stage_is_scored_no_oftener_than_one_of_fifteen_epochs(epochs: int, evaluations: int) -> None:
    loaded, _ = derived(loads(OPEN, "mine.yaml", [Override.parse(f"stages.0.epochs={epochs}")]), ABOUT)
    often = loaded.recipe.training.evaluations_per_epoch
    assert not isinstance(often, str)
    assert epochs * often == pytest.approx(evaluations, rel=0.05)


def test_open_values_are_in_the_language_by_default() -> None:
    assert Stage.model_fields["epochs"].default == AUTO


def test_a_plan_has_numbers_and_tells_which_were_derived(desk: Desk) -> None:
    plan = desk.plan(OPEN)
    keys = [each.key for each in plan.derived]
    assert keys[:3] == ["augmentation.copies", "training.batch_size", "training.learning_rate"]
    assert "teachers.cofinetune.epochs" in keys
    assert plan.recipe.training.batch_size == batch_size(160)
    assert plan.stages[-1].epochs == STUDENT_LENGTHS["normal"].epochs(160)
    assert desk.plan(OPEN, effort="quick").stages[-1].epochs == STUDENT_LENGTHS["quick"].epochs(160)
    assert type(plan).model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_an_effort_that_changes_nothing_of_the_student_is_told(desk: Desk) -> None:
    fixed = "stages.0.epochs=2"
    for flags, effort, said in [((fixed,), "quick", True), ((fixed,), "normal", False), ((), "quick", False)]:
        notes = [note for note in desk.plan(OPEN, *flags, effort=effort).notes if "--effort" in note]
        assert notes == (
            ["recipe mine says how many epochs the student has: --effort quick does not change that"] if said else []
        )


def test_a_plan_of_teachers_alone_tells_nothing_of_students(desk: Desk) -> None:
    keys = [each.key for each in desk.plan(OPEN, student=None, command="cofinetune").derived]
    assert "teachers.cofinetune.epochs" in keys
    assert not any(key.startswith("stages") or key == "training.learning_rate" for key in keys)


def test_circumstances_say_how_large_the_student_is(desk: Desk) -> None:
    plans = [desk.plan(OPEN, student=student) for student in ("2L", "2L-48H-4A")]
    reasons = [next(each.why for each in plan.derived if each.key == "training.learning_rate") for plan in plans]
    assert reasons == ["width 32", "width 48, random weights"]
