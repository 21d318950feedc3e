"""Models side by side: scores, what is kept, whom is compared with whom, seeds of one recipe, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from kdcli.atomic_files import json_text
from kdcli.data.task import Split, Task
from kdcli.errors import RequestError
from kdcli.evaluation.comparison import ModelOutputs, compare, ensemble, with_distinct_names
from kdcli.evaluation.document import Evaluation, Role
from kdcli.evaluation.gates import Gate, with_gates
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.classification import Classification

COUNT = 40
LABELS: Classes = np.array([0, 1] * (COUNT // 2))
KIND = Classification(("bad", "good"), ("bad", "good"))
TRAIN: Classes = np.array([1, 1, 1, 0])


def split_of(labels: Classes | None, texts: list[str], name: str) -> Split:
    return Split(texts, None, labels, f"{name}.jsonl", "0123456789abcdef")


def task(labels: Classes | None = LABELS, names: tuple[str, ...] = ("bad", "good"), metric: str = "accuracy") -> Task:
    dev = split_of(labels, [f"dev text {row}" for row in range(COUNT)], "dev")
    train = split_of(TRAIN, [f"train text {row}" for row in range(len(TRAIN))], "train")
    return Task("reviews", Classification(names, names), metric, {"train": train, "dev": dev})


def right_on(count: int, sure: float = 2.0) -> NDArray[np.float32]:
    """Logits that are right on the first ``count`` samples and wrong on the others."""
    answers = np.where(np.arange(COUNT) < count, LABELS, 1 - LABELS)
    return np.float32(sure) * np.eye(2, dtype=np.float32)[answers]


def answer(name: str, role: Role, count: int, sure: float = 2.0, **more: Any) -> ModelOutputs:
    logits = right_on(count, sure)
    return ModelOutputs(name, role, "checkpoint", logits.argmax(-1), logits, **more)


TEACHERS = ("bert", "roberta")
STUDENT = answer("student", "student", 32, parameters=100, teachers=TEACHERS, ensemble="ensemble")
ALONE = answer("without teachers", "without-teachers", 24, parameters=100, teachers=TEACHERS)
BERT, ROBERTA = answer("bert", "teacher", 36, parameters=400), answer("roberta", "teacher", 38, sure=3.0, parameters=500)
ALL = [STUDENT, ALONE, BERT, ROBERTA, ensemble("ensemble", KIND, [BERT, ROBERTA])]


def test_every_model_is_scored_and_keeps_its_role_and_size() -> None:
    found = compare(task(), "dev", ALL)
    assert [(model.name, model.role, model.scores["accuracy"], model.parameters) for model in found.models] == [
        ("student", "student", 0.8, 100),
        ("without teachers", "without-teachers", 0.6, 100),
        ("bert", "teacher", 0.9, 400),
        ("roberta", "teacher", 0.95, 500),
        ("ensemble", "ensemble", 0.95, 900),
        ("majority class", "majority", 0.5, None),
    ]
    assert (found.task, found.split, found.rows, found.source, found.metric) == ("reviews", "dev", 40, "dev.jsonl", "accuracy")
    assert found.labels == ["bad", "good"]
    assert all(model.interval[0] <= model.scores["accuracy"] <= model.interval[1] for model in found.models)


def test_ensemble_answers_with_the_mean_of_the_probabilities() -> None:
    generator = np.random.default_rng(0)
    logits = [generator.normal(size=(50, 3)).astype(np.float32) for _ in range(3)]
    members = [ModelOutputs(str(row), "teacher", "checkpoint", one.argmax(-1), one) for row, one in enumerate(logits)]
    together = ensemble("all", KIND, members)
    assert together.outputs is not None
    wanted = np.mean([softmax(one.astype(np.float64), axis=-1) for one in logits], axis=0)
    np.testing.assert_allclose(softmax(together.outputs.astype(np.float64), axis=-1), wanted, atol=1e-6)
    np.testing.assert_array_equal(together.predictions, wanted.argmax(-1))


def test_retention_and_drop_are_against_the_best_of_its_own_teachers() -> None:
    found = compare(task(), "dev", ALL)
    student = found.model("student")
    assert student.retention is not None
    assert student.drop is not None
    assert student.retention_of_ensemble is not None
    assert (student.retention.of, student.drop.of) == ("roberta", "roberta")
    assert [student.retention.value, student.drop.value] == pytest.approx([0.8 / 0.95, 0.15])
    assert student.drop.low <= 0.15 <= student.drop.high
    assert student.retention_of_ensemble.of == "ensemble"
    other = compare(task(), "dev", [replace(STUDENT, teachers=("bert",), ensemble=None), BERT, ROBERTA]).model("student")
    assert other.retention is not None
    assert other.retention.of == "bert"
    assert other.retention_of_ensemble is None


def test_without_a_teacher_or_with_one_that_scores_nothing_there_is_no_retention() -> None:
    assert compare(task(), "dev", [replace(STUDENT, teachers=())]).model("student").retention is None
    nothing = answer("bert", "teacher", 0)
    assert compare(task(), "dev", [STUDENT, nothing]).model("student").retention is None


def test_one_student_is_compared_with_each_other_model_and_its_files_with_it() -> None:
    files = [answer("student int8", "export", 31, teachers=TEACHERS)]
    found = compare(task(), "dev", [*ALL, *files])
    assert [(one.ours, one.theirs, one.comparisons) for one in found.differences] == [
        ("student", "without teachers", 4),
        ("student", "bert", 4),
        ("student", "roberta", 4),
        ("student", "ensemble", 4),
        ("student int8", "student", 1),
    ]
    assert found.differences[2].difference == pytest.approx(-0.15)


def test_several_students_are_ranked_and_compared_with_each_other() -> None:
    students = [answer(name, "student", count, teachers=("bert",)) for name, count in (("a", 20), ("b", 30), ("c", 25))]
    found = compare(task(), "dev", [*students, BERT])
    assert [model.name for model in found.models] == ["b", "c", "a", "bert", "majority class"]
    assert {(one.ours, one.theirs) for one in found.differences} == {("b", "c"), ("b", "a"), ("c", "a")}
    assert [(one.student, one.teacher) for one in found.agreements] == [("b", "bert"), ("c", "bert"), ("a", "bert")]


def test_many_students_are_compared_with_the_best() -> None:
    students = [answer(f"s{count}", "student", count) for count in range(10, 22)]
    found = compare(task(), "dev", students)
    assert {one.ours for one in found.differences} == {"s21"}
    assert len(found.differences) == 11


def test_runs_that_differ_in_their_seed_are_one_recipe() -> None:
    students = [
        answer(f"{recipe}-{seed}", "student", base + seed, recipe=recipe, seed=seed)
        for recipe, base in (("good", 30), ("poor", 20))
        for seed in range(4)
    ]
    found = compare(task(), "dev", students)
    assert [(recipe.name, len(recipe.scores)) for recipe in found.recipes] == [("good", 4), ("poor", 4)]
    good = found.recipes[0]
    scores = np.array([30, 31, 32, 33]) / COUNT
    assert good.mean == pytest.approx(scores.mean())
    assert good.deviation == pytest.approx(scores.std(ddof=1))
    assert good.models == {seed: f"good-{seed}" for seed in range(4)}
    assert [(one.ours, one.theirs, one.seeds) for one in found.recipe_differences] == [("good", "poor", (4, 4))]
    assert found.differences == []


def test_a_recipe_with_one_seed_is_not_compared_with_one_of_several() -> None:
    students = [answer(f"many-{seed}", "student", 30 + seed, recipe="many", seed=seed) for seed in range(3)]
    found = compare(task(), "dev", [*students, answer("single", "student", 20, recipe="single", seed=0)])
    assert {recipe.name for recipe in found.recipes} == {"many", "single"}
    assert found.recipe_differences == []
    assert any("single: one seed" in note for note in found.notes)


def test_a_seed_that_was_run_twice_counts_once_and_is_said() -> None:
    students = [answer(f"run-{place}", "student", 30 + place, recipe="r", seed=seed) for place, seed in enumerate((0, 1, 1))]
    found = compare(task(), "dev", students)
    assert found.recipes[0].models == {0: "run-0", 1: "run-1"}
    assert any("run-1 and run-2: the same recipe with the same seed (1)" in note for note in found.notes)


def test_agreement_counts_what_only_one_of_them_gets_right() -> None:
    found = compare(task(), "dev", [STUDENT, BERT, ROBERTA])
    assert [(one.teacher, one.both_right, one.lost, one.gained, one.both_wrong) for one in found.agreements] == [
        ("roberta", 32, 6, 0, 2),
        ("bert", 32, 4, 0, 4),
    ]


def test_predictions_without_logits_have_scores_and_no_calibration() -> None:
    found = compare(task(), "dev", [ModelOutputs("elsewhere", "model", "predictions", LABELS.copy())])
    assert found.model("elsewhere").scores["accuracy"] == 1.0
    assert found.model("elsewhere").calibration is None


def test_as_many_predictions_as_samples_are_needed() -> None:
    short = ModelOutputs("elsewhere", "model", "predictions", LABELS[:-1], path="preds.csv")
    with pytest.raises(RequestError, match=r"preds\.csv: has not as many predictions(.|\n)*40(.|\n)*39"):
        compare(task(), "dev", [short])


def test_a_split_without_labels_is_refused() -> None:
    for labels in (None, np.full(COUNT, -1)):
        with pytest.raises(RequestError, match="has no labels"):
            compare(task(labels), "dev", [STUDENT])


def test_a_class_that_is_missing_in_the_split_is_said() -> None:
    found = compare(task(names=("bad", "good", "mixed")), "dev", [ModelOutputs("m", "model", "predictions", LABELS.copy())])
    assert any("no sample of class mixed" in note for note in found.notes)
    assert compare(task(), "dev", [STUDENT]).notes == []


def test_samples_that_stand_in_training_too_are_counted() -> None:
    leaking = task()
    texts = [*leaking.train.texts[:3], *leaking.dev.texts[3:]]
    leaking = replace(leaking, splits={**leaking.splits, "dev": replace(leaking.dev, texts=texts)})
    assert any("3 of the 40 samples (7.5%)" in note for note in compare(leaking, "dev", [STUDENT]).notes)


def test_the_majority_answers_the_class_that_is_most_frequent_in_training_in_every_metric() -> None:
    majority = compare(task(), "dev", [STUDENT]).of("majority")[0]
    assert majority.scores == pytest.approx(
        {"accuracy": 0.5, "f1": 2 / 3, "macro-f1": 1 / 3, "weighted-f1": 1 / 3, "matthews": 0.0}
    )


def test_the_document_is_read_back_as_it_was_written() -> None:
    found = compare(task(metric="macro-f1"), "dev", ALL)
    text = json_text(found.model_dump(mode="json"))
    assert Evaluation.model_validate_json(text) == found
    assert json.loads(text) == json.loads(json.dumps(found.model_dump(mode="json")))


def test_the_best_teacher_has_the_highest_score() -> None:
    found = compare(task(), "dev", ALL)
    assert found.best_teacher is not None
    assert found.best_teacher.name == "roberta"
    assert [model.name for model in found.judged] == ["student"]
    assert [model.name for model in compare(task(), "dev", [BERT, ROBERTA]).judged] == ["bert", "roberta"]


# Names that a user chooses.


@pytest.mark.parametrize("name", ["ensemble", "student", "without teachers", "majority class", "model", "teacher"])
def test_a_teacher_is_itself_whatever_it_is_called(name: str) -> None:
    poor = answer("loud", "teacher", 20)
    good = answer(name, "teacher", 38)
    student = answer("student", "student", 19, teachers=(name, "loud"), ensemble="ensemble")
    found = compare(task(), "dev", [student, good, poor, ensemble("ensemble", KIND, [good, poor])])
    assert found.model("student").role == "student"
    kept = found.model("student").retention
    assert kept is not None
    assert kept.value == pytest.approx(0.5)
    assert found.model(kept.of).scores["accuracy"] == 0.95
    assert len({model.name for model in found.models}) == len(found.models) == 5


def test_models_of_one_name_are_told_apart_by_their_role() -> None:
    named = [answer("x", "model", 30, teachers=("x",)), answer("x", "teacher", 36), answer("x", "export", 28)]
    found = compare(task(), "dev", named)
    assert {model.role: model.scores["accuracy"] for model in found.models if model.role != "majority"} == {
        "model": 0.75, "teacher": 0.9, "export": 0.7,
    }  # fmt: skip
    assert found.judged[0].retention is not None
    assert found.judged[0].retention.value == pytest.approx(0.75 / 0.9)
    assert with_distinct_names(with_distinct_names(named, KIND), KIND) == with_distinct_names(named, KIND)


def test_runs_called_as_the_baselines_of_others_are_another_recipe() -> None:
    runs = [answer(f"a-{seed}", "student", 30 + seed, recipe="a", seed=seed) for seed in range(2)]
    alone = [answer(f"a-{s} without teachers", "without-teachers", 20, recipe="a without teachers", seed=s) for s in range(2)]
    other = [answer(f"b-{seed}", "student", 38, recipe="a without teachers", seed=seed) for seed in range(2)]
    found = compare(task(), "dev", [*runs, *alone, *other])
    assert sorted(round(recipe.mean, 4) for recipe in found.recipes) == [0.5, 0.7625, 0.95]


# Outputs that are not finite.


def broken(name: str, role: Role, rows: int = 3, value: float = float("nan"), **more: Any) -> ModelOutputs:
    logits = right_on(40)
    logits[:rows, 0] = value
    return ModelOutputs(name, role, "checkpoint", logits.argmax(-1), logits, **more)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_whose_outputs_are_not_finite_has_no_score_and_passes_no_gate(value: float) -> None:
    found = compare(task(), "dev", [STUDENT, broken("second", "student", value=value), BERT, ROBERTA])
    assert [model.name for model in found.judged] == ["student"]
    assert [(one.name, one.not_finite, one.rows) for one in found.unscored] == [("second", 3, 40)]
    assert "second has no score: its outputs are not finite for 3 of 40 samples" in found.cautions
    gates = [Gate.parse("min-score", "0.1"), Gate.parse("max-ece", "2"), Gate.parse("min-retention", "0")]
    passed = {(gate.model, gate.passed) for gate in with_gates(found, gates).gates}
    assert passed == {("student", True), ("second", False)}
    assert "NaN" not in json_text(found.model_dump(mode="json"))


def test_nobody_is_judged_in_the_place_of_a_student_that_has_no_score() -> None:
    with pytest.raises(RequestError, match=r"alone has no score: its outputs are not finite for 3 of 40 samples"):
        compare(task(), "dev", [broken("alone", "student"), BERT])


def test_against_a_teacher_without_a_score_nothing_is_kept() -> None:
    bad = broken("bad", "teacher")
    student = answer("student", "student", 30, teachers=("bert", "bad"), ensemble="ensemble")
    found = compare(task(), "dev", [student, BERT, bad, ensemble("ensemble", KIND, [BERT, bad])])
    assert (found.judged[0].retention, found.judged[0].retention_of_ensemble, found.judged[0].drop) == (None, None, None)
    assert {one.name for one in found.unscored} == {"bad", "ensemble"}
    with pytest.raises(RequestError, match="bad has no score"):
        with_gates(found, [Gate.parse("min-retention", "0.1")])


# What puts a figure in doubt.


def test_a_student_at_chance_is_said_to_be() -> None:
    found = compare(task(), "dev", [answer("student", "student", 21, teachers=("bert",)), BERT])
    assert found.model("student").chance is not None
    assert found.model("student").chance.at_chance  # type: ignore[union-attr]
    assert any(line.startswith("student is at chance: accuracy 0.5250") for line in found.cautions)
    assert not any(line.startswith("bert is at chance") for line in found.cautions)


def test_a_teacher_that_its_student_beats_by_far_is_called_under_trained() -> None:
    poor = answer("poor", "teacher", 24)
    found = compare(task(), "dev", [answer("student", "student", 38, teachers=("poor",)), poor])
    assert any(line.startswith("poor is under-trained: student scores 35.0 points above it") for line in found.cautions)
    near = compare(task(), "dev", [answer("student", "student", 37, teachers=("bert",)), BERT])
    assert not any("under-trained" in line for line in near.cautions)
