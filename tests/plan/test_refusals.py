"""Every mistake that a plan refuses: where it was written, what is wrong, expected, found, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_task
from kdcli.errors import Problem
from tests.plan.desk import Desk, Shelf
from tests.plan.mistakes import ALL, BERT, BOTH, EIGHT_HEADS, ROBERTA, TERM, Sizes, Wrong, assert_said, other, recipe


def models(shelf: Shelf, sizes: Mapping[str, Sizes]) -> dict[str, Path]:
    return {name: shelf.model(*size) for name, size in sizes.items()}


def said(problems: tuple[Problem, ...]) -> list[str]:
    """Key path and mistake of each problem."""
    return [f"{problem.where.partition('  ')[2]}: {problem.what}" for problem in problems]


@pytest.mark.parametrize("wrong", ALL, ids=lambda wrong: wrong.about)
def test_mistake_is_told_once_with_its_place_and_what_to_do(wrong: Wrong, shelf: Shelf) -> None:
    (problem,) = shelf.refused(wrong.text, teachers=models(shelf, wrong.models), student=wrong.student)
    assert_said(problem, wrong)


@pytest.mark.parametrize("wrong", [wrong for wrong in ALL if wrong.path.startswith(TERM)], ids=lambda wrong: wrong.about)
def test_mistake_of_a_term_that_is_switched_off_does_no_harm(wrong: Wrong, shelf: Shelf) -> None:
    text = wrong.text.replace("weight: 0", "weight: 1").replace(f"loss: {wrong.term}", f"loss: {wrong.term}, weight: 0")
    assert shelf.check(text, teachers=models(shelf, wrong.models), student=wrong.student)


@pytest.mark.parametrize("wrong", [wrong for wrong in ALL if wrong.path.startswith(TERM)], ids=lambda wrong: wrong.about)
def test_mistake_that_a_flag_made_points_to_the_flag(wrong: Wrong, shelf: Shelf) -> None:
    flag = f"{TERM}={{loss: {wrong.term}}}"
    text = recipe("hard-labels", **wrong.rest)
    (problem,) = shelf.refused(text, flag, teachers=models(shelf, wrong.models), student=wrong.student)
    assert problem.where == f"--set {flag}  {wrong.path}"


# What is not a mistake.


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2"])
@pytest.mark.parametrize("loss", ["attention-kl", "relation-kl", "hidden-mse", "relational", "random-layers"])
def test_all_but_the_scores_of_eager_architectures_can_be_had(kind: str, loss: str, shelf: Shelf) -> None:
    assert shelf.check(recipe(loss), teachers=models(shelf, other(kind)))


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "albert", "modernbert"])
def test_every_loss_can_be_had_of_the_usual_architectures(kind: str, shelf: Shelf) -> None:
    for loss in ("attention-mse", "attention-kl", "relation-kl", "hidden-cosine", "relational", "random-layers"):
        assert shelf.check(recipe(loss), teachers=models(shelf, other(kind)))


@pytest.mark.parametrize("loss", ["hidden-mse", "hidden-cosine", "relational", "random-layers", "logits-mse", "soft-labels"])
def test_what_leaves_the_layers_can_be_had_of_every_architecture(loss: str, shelf: Shelf) -> None:
    assert shelf.check(recipe(loss), teachers=models(shelf, BERT | other("convbert")))


@pytest.mark.parametrize("loss", ["hard-labels", "soft-labels", "logits-mse", "relational, states: logits"])
def test_answers_can_be_had_of_architectures_that_show_nothing_else(loss: str, shelf: Shelf) -> None:
    assert shelf.check(recipe(loss), teachers=models(shelf, other("squeezebert")))


@pytest.mark.parametrize(
    ("term", "sizes"),
    [
        ("hidden-mse, projection: null", BERT),
        ("hidden-mse, teachers: [bert], projection: null", BOTH),
        ("attention-kl, heads: match", BOTH),
        ("attention-kl, heads: auto", BERT | EIGHT_HEADS),
        ("attention-kl, heads: {eight: mean, bert: {1: 4, 4: 1}}", BERT | EIGHT_HEADS),
        ("relation-kl, relation_heads: null", BOTH),
        ("relation-kl, relation_heads: 16", BOTH),
        ("soft-labels, weighting: {bert: 0, roberta: 1}", BOTH),
        ("soft-labels, teachers: [roberta], weighting: {roberta: 1}", BOTH),
        ("soft-labels, weighting: confidence", BERT),
        ("soft-labels, draw: uniform, weighting: inverse-error", BOTH),
        ("soft-labels, draw: ranked, weighting: {bert: 1, roberta: 2}", BOTH),
        ("relational, group: 16", BERT),
        ("relational, distance_weight: 0", BERT),
        ("hidden-mse, layers: {bert: {0: 0}}", BERT),
    ],
)
def test_borders_of_what_is_right_are_right(term: str, sizes: dict[str, Sizes], shelf: Shelf) -> None:
    assert shelf.check(recipe(term), teachers=models(shelf, sizes))


def test_unlike_heads_are_brought_together_by_their_mean_unless_the_recipe_says_more(shelf: Shelf) -> None:
    teachers = models(shelf, BERT | EIGHT_HEADS)
    for written, heads in (
        ("auto", {"bert": "match", "eight": "mean"}),
        ("mean", {"bert": "mean", "eight": "mean"}),
        ("{eight: {1: 8, 2: 7}}", {"bert": "match", "eight": {1: 8, 2: 7}}),
        ("{bert: mean}", {"bert": "mean", "eight": "mean"}),
    ):
        (stage,) = shelf.stages(recipe(f"attention-kl, heads: {written}"), teachers=teachers)
        assert stage.terms[0].heads == heads


@pytest.mark.parametrize(
    ("student", "written", "heads"),
    [
        ("2L", "auto", {"bert": 32, "roberta": 16}),
        ("2L-36H", "auto", {"bert": 4, "roberta": 12}),
        ("2L-30H", "auto", {"bert": 2, "roberta": 6}),
        ("2L", "8", {"bert": 8, "roberta": 8}),
        ("2L", "null", {"bert": None, "roberta": None}),
    ],
)
def test_relation_heads_are_as_many_as_both_widths_can_be_cut_into(
    student: str, written: str, heads: dict[str, int | None], shelf: Shelf
) -> None:
    (stage,) = shelf.stages(recipe(f"relation-kl, relation_heads: {written}"), student=student)
    assert stage.terms[0].relation_heads == heads


def test_relation_heads_of_wide_models_are_48_as_in_the_paper(shelf: Shelf) -> None:
    teachers = models(shelf, {"base": ("bert", 4, 768, 12), "large": ("bert", 4, 1024, 16)})
    (stage,) = shelf.stages(recipe("relation-kl"), teachers=teachers)
    assert stage.terms[0].relation_heads == {"base": 48, "large": 32}  # 48 does not divide 1,024


@pytest.mark.parametrize(
    ("written", "sides"),
    [
        ("auto", {"bert": None, "roberta": "student"}),
        ("{side: student}", {"bert": "student", "roberta": "student"}),
        ("{side: teacher}", {"bert": "teacher", "roberta": "teacher"}),
        ("{share: per-teacher}", {"bert": "student", "roberta": "student"}),
    ],
)
def test_projections_are_where_the_widths_differ_or_where_the_recipe_wants_them(
    written: str, sides: dict[str, str | None], shelf: Shelf
) -> None:
    for loss in ("hidden-mse", "hidden-cosine"):
        (stage,) = shelf.stages(recipe(f"{loss}, projection: {written}"))
        assert stage.terms[0].projected == sides


# Several mistakes together.


def test_mistakes_of_every_kind_come_together_and_each_of_them_once(shelf: Shelf) -> None:
    text = recipe(
        "attention-kl, heads: {bert: {9: 1}}, layers: {bert: {1: 0}, roberta: {7: 7}, brt: top}}\n"
        "      - {loss: attention-mse, teachers: [other, otter]}\n"
        "      - {loss: soft-labels, weighting: {bert: 1}}\n"
        "      - {loss: hidden-mse, projection: null}\n"
        "      - {loss: relational, group: 99",
        layers="{brt: top}",
        student="{init: {from: brt}}",
        teachers="{labels: {brt: [a]}}",
        training="{max_length: 120}",
        freeze="[9]",
        until="{loss: soft, below: 1}",
    )
    text += "  - name: two\n    expand: stacked\n    objective: [{loss: hard-labels}]\n"
    found = shelf.refused(text, teachers=models(shelf, BOTH | other("mpnet")))
    objective = "stages.0.objective"
    assert sorted(said(found)) == sorted(
        [
            "layers.brt: there is no teacher 'brt'",
            "student.init.from: there is no teacher 'brt'",
            "teachers.labels.brt: there is no teacher 'brt'",
            f"{objective}.1.layers.brt: there is no teacher 'brt'",
            f"{objective}.1.layers.bert: layer 0 is the embeddings, which have no attention for attention-kl",
            f"{objective}.1.layers.roberta: student layer 7 does not exist",
            f"{objective}.1.heads.bert: student head 9 does not exist",
            f"{objective}.2.teachers: there is no teacher 'otter'",
            f"{objective}.2.loss: attention-mse cannot be served by mpnet (teacher other)",
            f"{objective}.3.weighting: has no weight for every teacher",
            f"{objective}.4.projection: the widths differ, so a projection is needed",
            f"{objective}.5.group: is larger than the batch",
            "stages.0.freeze: student layer 9 does not exist",
            "stages.0.until.loss: stage one has no loss 'soft'",
            "stages.1.expand: there is no loss on layers in this stage to be expanded",
        ]
    )


TWO_STAGES = """\
name: mine
layers: {bert: {1: 9}}
stages:
  - {name: one, objective: [{loss: hidden-mse}]}
  - {name: two, objective: [{loss: hidden-mse}, {loss: hidden-cosine}]}
"""


def test_mistake_that_several_terms_and_stages_meet_is_told_once_and_has_no_followers(shelf: Shelf) -> None:
    assert said(shelf.refused(TWO_STAGES, teachers=shelf.one())) == ["layers.bert: teacher layer 9 does not exist"]


def test_map_that_cannot_be_resolved_is_not_also_told_as_a_missing_one(shelf: Shelf) -> None:
    found = shelf.refused(TWO_STAGES, "stages.0.expand=stacked", "stages.1.expand=stacked", teachers=shelf.one())
    assert said(found) == ["layers.bert: teacher layer 9 does not exist"]


def test_unknown_teacher_is_not_also_told_as_too_few_teachers(shelf: Shelf) -> None:
    found = shelf.refused(recipe("soft-labels, teachers: [brt, roberta], draw: uniform"))
    assert said(found) == [f"{TERM}.teachers: there is no teacher 'brt'"]


def test_map_that_fits_no_teacher_because_of_the_student_is_told_once(shelf: Shelf) -> None:
    assert len(shelf.refused(recipe("hidden-mse, layers: skip"), student="1L")) == 1


def test_mistake_in_a_map_of_several_lines_is_told_at_the_line_of_its_teacher(shelf: Shelf) -> None:
    text = "name: mine\nlayers:\n  roberta: top\n  bert: {1: 9}\nstages:\n  - {name: one, objective: [{loss: hidden-mse}]}\n"
    for flags in ([], ["student.init.layers=matched"]):
        assert [problem.where for problem in shelf.refused(text, *flags)] == ["mine.yaml:4  layers.bert"]


def test_two_terms_of_one_name_are_told_apart_unless_neither_was_given_it(shelf: Shelf) -> None:
    twice = "soft-labels, teachers: [bert]}\n      - {loss: soft-labels, teachers: [roberta]"
    assert shelf.check(recipe(twice))
    found = shelf.refused(recipe(twice.replace("loss: soft-labels", "name: soft-labels, loss: soft-labels")))
    assert said(found) == ["stages.0.objective: two terms have the name 'soft-labels'"]


# The student's size.


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ("4X", "is neither a size nor a checkpoint"),
        ("0L", "is not a size that can be built"),
        ("2L-32H-5A", "is not a size that can be built"),
        ("2L-5A", "5 heads do not divide the width 32"),
        ("9L", "is deeper than the teacher that it is cut from (bert has 4 layers)"),
    ],
)
def test_size_that_cannot_be_is_refused_where_it_was_written(size: str, what: str, shelf: Shelf) -> None:
    (at_flag,) = shelf.refused(recipe(), student=size)
    assert (at_flag.where, at_flag.what) == (f"--student {size}", what)
    (at_line,) = shelf.refused(recipe(student=f"{{size: {size}}}"), student=None)
    assert at_line.what == what
    assert at_line.where == "mine.yaml:3  student.size"


@pytest.mark.parametrize("size", ["0L", "3L-5A", "3L-33H-4A"])
def test_assistants_size_that_cannot_be_is_refused_where_it_was_written(size: str, shelf: Shelf) -> None:
    found = shelf.refused(recipe(assistants=f"[{size}]", layers="{brt: top}"))
    assert {problem.where for problem in found} == {"mine.yaml:2  layers.brt", "mine.yaml:5  assistants.0"}


def test_size_that_neither_the_flag_nor_the_recipe_says_is_missed(shelf: Shelf, desk: Desk) -> None:
    for (problem,) in (shelf.refused(recipe(), student=None), desk.refused(recipe(), student=None)):
        assert (problem.where, problem.what) == ("--student", "is missing")
        assert "4L" in problem.expected + problem.remedy


def test_names_in_the_recipe_are_checked_even_where_the_student_cannot_be(shelf: Shelf) -> None:
    found = shelf.refused(recipe(layers="{brt: top}", teachers="{labels: {brt: [a]}}"), student="9L")
    assert {problem.where.split("  ")[-1] for problem in found} == {"--student 9L", "layers.brt", "teachers.labels.brt"}


# Teachers' answers.


def test_out_of_fold_answers_need_teachers_that_are_trained_here(desk: Desk, classifier: Path) -> None:
    text = recipe("soft-labels, weighting: inverse-error", teachers="{out_of_fold: 5}")
    (problem,) = desk.refused(text, teachers=f"mine={classifier}")
    assert problem.where == f"{desk.line(4)}  teachers.out_of_fold"
    assert problem.what == "needs teachers that are co-finetuned in this run"
    assert problem.found == "mine trained already"
    assert problem.remedy == "--set teachers.cofinetune.which=all"
    assert desk.plan(text, "teachers.cofinetune.which=all", teachers=f"mine={classifier}").cofinetune
    assert desk.plan(text).recipe.teachers.out_of_fold == 5


@pytest.mark.parametrize("term", ["soft-labels", "soft-labels, weighting: agreement, scale: agreement", "hidden-mse"])
def test_out_of_fold_answers_that_nothing_would_use_are_refused(term: str, desk: Desk) -> None:
    (problem,) = desk.refused(recipe(term, teachers="{out_of_fold: 2}"))
    assert problem.where == f"{desk.line(4)}  teachers.out_of_fold"
    assert problem.what == "no term weights its teachers by their errors, so that nothing would use them"
    assert problem.remedy == "weighting: inverse-error in a soft-labels term"


@pytest.fixture(scope="module")
def unlabelled(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """The tiny task with three further texts that nobody has labelled."""
    more = tmp_path_factory.mktemp("more") / "more.jsonl"
    more.write_text("".join(f'{{"text": "The film number {row}."}}\n' for row in range(3)), encoding="utf-8")
    return load_task(DataRequest(data=str(tiny_data), unlabelled=str(more)))


@pytest.mark.parametrize(
    ("setting", "key", "remedy"),
    [
        ("weighting: inverse-error", "weighting", "unlabelled_weighting=agreement"),
        ("weighting: softmax-error", "weighting", "unlabelled_weighting=agreement"),
        ("scale: correctness", "scale", "unlabelled_scale=agreement"),
    ],
)
def test_weights_by_error_need_gold_labels_of_all_rows(
    setting: str, key: str, remedy: str, desk: Desk, unlabelled: Task
) -> None:
    text = recipe(f"soft-labels, {setting}")
    desk.path.write_text(text, encoding="utf-8")
    lacking = Desk(desk.folder, unlabelled, *desk.models)
    (problem,) = lacking.refused(text)
    assert problem.where == f"{desk.line(14)}  {TERM}.{key}"
    assert problem.what == "needs gold labels, which 3 of the training rows do not have"
    assert problem.remedy == f"--set {TERM}.{remedy}"
    assert lacking.plan(text, problem.remedy.removeprefix("--set "))
    assert desk.plan(text)


def test_both_ways_of_weighting_by_error_are_told_at_once(desk: Desk, unlabelled: Task) -> None:
    text = recipe("soft-labels, weighting: inverse-error, scale: correctness")
    found = Desk(desk.folder, unlabelled, *desk.models).refused(text)
    assert [problem.where.split("  ")[1] for problem in found] == [f"{TERM}.weighting", f"{TERM}.scale"]


@pytest.mark.parametrize("term", ["soft-labels, weighting: agreement, scale: agreement", "soft-labels", "hidden-mse"])
def test_texts_without_labels_teach_through_every_other_loss(term: str, desk: Desk, unlabelled: Task) -> None:
    plan = Desk(desk.folder, unlabelled, *desk.models).plan(recipe(term, hard=1), "training.batch_size=32", "stages.0.epochs=3")
    assert plan.task.splits["unlabelled"].rows == 3
    # 160 rows with labels and 3 without, in batches of 32
    assert plan.hops[0].stages[0].steps == 3 * 6


def test_roberta_alone_teaches_as_well(shelf: Shelf) -> None:
    (stage,) = shelf.stages(recipe("hidden-mse"), teachers=models(shelf, ROBERTA))
    assert stage.terms[0].projected == {"roberta": None}
