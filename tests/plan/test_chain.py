"""Teachers, assistants on the way, student: who teaches whom, how large each is, and what each learns by."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.plan import HopPlan, Plan
from tests.plan.desk import Desk, Shelf, maps_of

CHAIN = """\
name: mine
assistants: ASSISTANTS
layers: uniform
teachers: {cofinetune: {epochs: 3}}
training: {batch_size: 32, max_length: 64, precision: fp32}
stages:
  - name: internal
    epochs: 3
    expand: stacked
    objective:
      - {loss: hidden-mse}
  - name: distill
    epochs: 2
    objective:
      - {loss: hard-labels, weight: 0.5}
      - {loss: soft-labels, weight: 0.5}
"""


def chain(assistants: str) -> str:
    return CHAIN.replace("ASSISTANTS", assistants)


def sizes(hops: list[HopPlan]) -> list[tuple[str, list[str], int]]:
    """Name, teachers and depth of every training."""
    return [(hop.name, hop.teachers, hop.student.layers) for hop in hops]


@pytest.mark.parametrize(
    ("assistants", "student", "expected"),
    [
        ("[]", "2L", [("distill", ["bert"], 2)]),
        ("[midway]", "4L", [("assistant-1", ["bert"], 8), ("distill", ["assistant-1"], 4)]),
        ("[midway]", "3L", [("assistant-1", ["bert"], 8), ("distill", ["assistant-1"], 3)]),  # 7.5 rounds up
        ("[midway]", "10L", [("assistant-1", ["bert"], 11), ("distill", ["assistant-1"], 10)]),
        ("[6L]", "2L", [("assistant-1", ["bert"], 6), ("distill", ["assistant-1"], 2)]),
        ("[teacher]", "11L", [("assistant-1", ["bert"], 12), ("distill", ["assistant-1"], 11)]),
        ("[teacher]", "12L", [("distill", ["bert"], 12)]),
        ("[{size: midway}]", "4L", [("assistant-1", ["bert"], 8), ("distill", ["assistant-1"], 4)]),
        (
            "[midway, midway]",
            "2L",
            [("assistant-1", ["bert"], 7), ("assistant-2", ["assistant-1"], 5), ("distill", ["assistant-2"], 2)],
        ),
        (
            "[9L, midway, 3L]",
            "1L",
            [
                ("assistant-1", ["bert"], 9),
                ("assistant-2", ["assistant-1"], 5),
                ("assistant-3", ["assistant-2"], 3),
                ("distill", ["assistant-3"], 1),
            ],
        ),
    ],
)
def test_each_is_taught_by_the_one_before(
    assistants: str, student: str, expected: list[tuple[str, list[str], int]], shelf: Shelf
) -> None:
    hops = shelf.check(chain(assistants), teachers={"bert": shelf.model(layers=12)}, student=student)
    assert sizes(hops) == expected


def test_an_assistant_may_be_trained_for_another_time_than_the_student(shelf: Shelf) -> None:
    recipe = chain("[{size: teacher, epochs: 0.5}, 5L]")
    hops = shelf.check(recipe, teachers={"bert": shelf.model(layers=6)}, student="2L")
    assert sizes(hops)[:2] == [("assistant-1", ["bert"], 6), ("assistant-2", ["assistant-1"], 5)]
    half, whole, last = ([(stage.epochs, stage.steps) for stage in hop.stages][-1] for hop in hops)
    assert whole == last
    assert half[0] == whole[0] / 2
    assert 2 * half[1] == pytest.approx(whole[1], abs=1)


def test_all_teachers_teach_the_first_assistant_and_the_first_of_them_sets_its_depth(shelf: Shelf) -> None:
    both = shelf.two()
    assert sizes(shelf.check(chain("[midway]"), teachers=both)) == [
        ("assistant-1", ["bert", "roberta"], 3),
        ("distill", ["assistant-1"], 2),
    ]
    reverse = dict(reversed(both.items()))
    hops = shelf.check(chain("[midway]"), teachers=reverse)
    assert sizes(hops)[0] == ("assistant-1", ["roberta", "bert"], 4)
    assert (hops[0].student.model_type, hops[0].student.width) == ("roberta", 48)


def test_every_training_goes_by_the_depths_of_its_own_models(shelf: Shelf) -> None:
    first, last = shelf.check(
        chain("[4L]"), teachers={"bert": shelf.model(layers=12), "roberta": shelf.model("roberta", 6, 48)}
    )
    assert [(stage.name, maps_of(stage).get("hidden-mse")) for stage in first.stages] == [
        ("internal-1", {"bert": {1: 3}, "roberta": {1: 2}}),
        ("internal-2", {"bert": {1: 3, 2: 6}, "roberta": {1: 2, 2: 3}}),
        ("internal-3", {"bert": {1: 3, 2: 6, 3: 9}, "roberta": {1: 2, 2: 3, 3: 5}}),
        ("internal-4", {"bert": {1: 3, 2: 6, 3: 9, 4: 12}, "roberta": {1: 2, 2: 3, 3: 5, 4: 6}}),
        ("distill", None),
    ]
    assert [(stage.name, maps_of(stage).get("hidden-mse")) for stage in last.stages] == [
        ("internal-1", {"assistant-1": {1: 2}}),
        ("internal-2", {"assistant-1": {1: 2, 2: 4}}),
        ("distill", None),
    ]
    assert {stage.phase for stage in first.stages} == {"assistant-1"}
    assert {stage.phase for stage in last.stages} == {"distill"}
    assert [stage.moves for stage in last.stages] == [["embeddings", 1], ["embeddings", 1, 2], ["embeddings", 1, 2, "head"]]


def test_assistants_of_another_width_bring_projections_with_them(shelf: Shelf) -> None:
    first, last = shelf.check(chain("[3L-16H]"), student="2L")
    assert (first.student.width, first.student.source, first.student.copied_layers) == (16, "scratch", [])
    assert first.stages[0].terms[0].projected == {"bert": "student", "roberta": "student"}
    assert (last.student.width, last.student.source, last.student.copied_layers) == (16, "assistant-1", [1, 2])
    assert last.stages[0].terms[0].projected == {"assistant-1": None}
    assert last.stages[0].terms[0].teachers == ["assistant-1"]


@pytest.mark.parametrize(
    ("layers", "first", "last"),
    [
        ("first", [1, 2, 3, 4], [1, 2]),
        ("last", [3, 4, 5, 6], [3, 4]),
        ("uniform", [2, 3, 5, 6], [2, 4]),
        ("matched", [2, 3, 5, 6], [2, 4]),
    ],
)
def test_each_is_cut_from_the_one_before(layers: str, first: list[int], last: list[int], shelf: Shelf) -> None:
    teachers = {"bert": shelf.model(layers=6)}
    hops = shelf.check(chain("[4L]"), f"student.init.layers={layers}", teachers=teachers)
    assert [(hop.student.source, hop.student.copied_layers) for hop in hops] == [("bert", first), ("assistant-1", last)]


def test_student_that_is_a_checkpoint_may_end_a_chain(shelf: Shelf, desk: Desk, tiny_bert: Path) -> None:
    plan = desk.plan(chain("[5L]"), student=str(tiny_bert), teachers=f"roberta={desk.models[1]}")
    assert sizes(plan.hops) == [("assistant-1", ["roberta"], 5), ("distill", ["assistant-1"], 4)]
    assert plan.student_or_fail.source == "checkpoint"


def test_plan_lists_the_assistants_behind_the_given_teachers(desk: Desk) -> None:
    plan = desk.plan(chain("[3L]"))
    assert [teacher.name for teacher in plan.teachers] == ["bert", "roberta", "assistant-1"]
    assert [teacher.name for teacher in plan.given_teachers] == ["bert", "roberta"]
    assistant = plan.teacher("assistant-1")
    assert (assistant.kind, assistant.layers, assistant.width, assistant.order) == ("assistant", 3, 32, None)
    assert assistant.same_tokens
    assert [teacher.name for teacher in plan.to_cofinetune] == ["bert", "roberta"]
    assert plan.student_or_fail == plan.hops[-1].student
    assert plan.student_or_fail.layers == 2


def test_stages_of_the_whole_chain_are_in_the_order_of_training(desk: Desk) -> None:
    plan = desk.plan(chain("[3L]"))
    # 160 rows in batches of 32 are 5 steps an epoch
    assert [(stage.phase, stage.name, stage.steps) for stage in plan.stages] == [
        ("cofinetune", "cofinetune", 15),
        ("assistant-1", "internal-1", 15),
        ("assistant-1", "internal-2", 15),
        ("assistant-1", "internal-3", 15),
        ("assistant-1", "distill", 10),
        ("distill", "internal-1", 15),
        ("distill", "internal-2", 15),
        ("distill", "distill", 10),
    ]


def test_plan_of_a_chain_survives_being_written_and_read(desk: Desk, tmp_path: Path) -> None:
    plan = desk.plan(chain("[3L]"))
    assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_plan(plan)
    assert folder.read_plan() == plan


def test_cofinetuning_alone_has_no_chain(desk: Desk) -> None:
    plan = desk.plan(chain("[3L]"), student=None, command="cofinetune")
    assert (plan.hops, [teacher.name for teacher in plan.teachers]) == ([], ["bert", "roberta"])


@pytest.mark.parametrize(
    ("setting", "term"),
    [
        ("layers: {bert: last, roberta: last}", "hidden-mse"),
        ("heads: {roberta: mean}", "attention-kl"),
        ("teachers: [roberta]", "soft-labels"),
        ("weighting: {bert: 1, roberta: 2}", "soft-labels"),
    ],
)
def test_teacher_that_was_given_is_not_called_unknown_because_an_assistant_teaches_last(
    setting: str, term: str, shelf: Shelf
) -> None:
    """Where a term names its teachers and the student learns from an assistant, either it goes, or it is said why not."""
    text = chain("[3L]").replace("{loss: hard-labels, weight: 0.5}", f"{{loss: {term}, name: named, {setting}}}")
    assert not [problem for problem in shelf.problems(text) if problem.what.startswith("there is no teacher")]


@pytest.mark.parametrize("names", [["assistant-1"], ["assistant-1", "own-assistant-1"]])
def test_an_assistant_is_called_as_no_teacher_of_the_users_is(names: list[str], shelf: Shelf) -> None:
    teachers = {name: shelf.model(layers=12) for name in names}
    first, last = shelf.check(chain("[6L]"), teachers=teachers, student="2L")
    assert first.teachers == names
    assert first.name not in names
    assert last.teachers == [first.name]


@pytest.mark.parametrize("name", ["checkpoint", "scratch", "first-teacher", "student"])
def test_a_teacher_may_be_called_as_a_word_of_the_plan(name: str, desk: Desk, tmp_path: Path) -> None:
    bert, roberta = desk.models
    named = f"bert={bert},{name}={roberta}"
    cut = desk.plan(chain("[]"), teachers=named).student_or_fail
    assert (cut.kind, cut.cut_from, cut.model_type) == ("teacher", "bert", "bert")
    random = desk.plan(chain("[]"), "student.init.from=scratch", teachers=named).student_or_fail
    assert (random.kind, random.cut_from, random.model_type) == ("scratch", None, "bert")
    own = desk.plan(chain("[]"), "layers=uniform", teachers=named, student=str(bert)).student_or_fail
    assert (own.kind, own.cut_from) == ("checkpoint", None)
