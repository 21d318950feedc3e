"""A recipe held against configurations alone: no weights, no tokenizer, no data, and the same verdict as a whole plan's."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.models.checkpoints import parse_references
from kdcli.plan.resolve import check_recipe
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.loading import loads
from tests.plan.desk import Desk, Shelf, named
from tests.plan.mistakes import ALL, BERT, BOTH, ROBERTA, Wrong, recipe

# The tiny teachers of the plans have the sizes of these.
OF_TINY_TEACHERS = [wrong for wrong in ALL if wrong.models in (BERT, ROBERTA, BOTH)]


def test_folders_with_a_configuration_and_nothing_else_are_enough(shelf: Shelf) -> None:
    teachers = shelf.two()
    assert [[entry.name for entry in folder.iterdir()] for folder in teachers.values()] == [["config.json"]] * 2
    for path in shipped().values():
        assert shelf.check(path.read_text(encoding="utf-8"), teachers=teachers)


def test_nothing_is_written_beside_the_configurations(shelf: Shelf) -> None:
    shelf.check(recipe("attention-kl"))
    assert all([entry.name for entry in folder.iterdir()] == ["config.json"] for folder in shelf.two().values())


def test_student_may_be_a_configuration_as_well(shelf: Shelf) -> None:
    folder = shelf.model("roberta", 3, 48)
    (hop,) = shelf.check(recipe("hidden-mse"), student=str(folder))
    assert (hop.student.layers, hop.student.width, hop.student.model_type) == (3, 48, "roberta")
    assert hop.stages[0].terms[0].projected == {"bert": "student", "roberta": None}


def test_depths_of_everybody_who_teaches_come_with_the_trainings(shelf: Shelf) -> None:
    loaded = loads(recipe("hidden-mse", assistants="[3L]"), "mine.yaml")
    hops, depths = check_recipe(loaded, parse_references(named(shelf.two()), "--teachers"), "2L")
    assert depths == {"bert": 4, "roberta": 6, "assistant-1": 3}
    assert [hop.name for hop in hops] == ["assistant-1", "distill"]


def teachers_of(wrong: Wrong, bert: Path, roberta: Path) -> dict[str, Path]:
    return {name: {"bert": bert, "roberta": roberta}[name] for name in wrong.models}


@pytest.mark.parametrize("wrong", OF_TINY_TEACHERS, ids=lambda wrong: wrong.about)
def test_it_says_the_same_mistakes_as_a_plan(
    wrong: Wrong, shelf: Shelf, desk: Desk, tiny_bert: Path, tiny_roberta: Path
) -> None:
    teachers = teachers_of(wrong, tiny_bert, tiny_roberta)
    flags = ["training.max_length=64"] if "max_length" not in wrong.text else []
    planned = desk.refused(wrong.text, *flags, teachers=named(teachers), student=wrong.student)
    found = shelf.problems(wrong.text, *flags, teachers=teachers, student=wrong.student, origin=str(desk.path))
    assert found == planned


def test_it_says_several_mistakes_in_the_same_order_as_a_plan(
    shelf: Shelf, desk: Desk, tiny_bert: Path, tiny_roberta: Path
) -> None:
    text = recipe(
        "attention-kl, teachers: [brt, bert], heads: {bert: {7: 1}}",
        layers="{roberta: {9: 9}, brt: top}",
        teachers="{labels: {robert: [a]}}",
        training="{max_length: 4000}",
        freeze="[5]",
        until="{loss: b, below: 1}",
    )
    planned = desk.refused(text)
    assert len(planned) == 9
    teachers = {"bert": tiny_bert, "roberta": tiny_roberta}
    assert shelf.problems(text, teachers=teachers, origin=str(desk.path)) == planned


def test_missing_teachers_are_told_all_at_once(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    teachers = {"one": tmp_path / "nowhere", "two": tmp_path / "empty", "three": Path("brt")}
    assert [problem.what for problem in shelf.refused(recipe(), teachers=teachers)] == [
        "there is no such folder",
        "is not a checkpoint",
        "there is no such model",
    ]


def test_right_recipe_is_right_in_both(shelf: Shelf, desk: Desk, tiny_bert: Path, tiny_roberta: Path) -> None:
    text = recipe("hidden-mse", hard=1, training="{max_length: 64}")
    assert desk.plan(text)
    assert shelf.problems(text, teachers={"bert": tiny_bert, "roberta": tiny_roberta}) == ()
