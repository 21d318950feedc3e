"""Student, teachers and baselines side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from kdcli.evaluation.comparison import Evaluation, Role, compare
from kdcli.evaluation.metrics import Classes

LABELS: Classes = np.array([0, 1] * 5)
TRAIN: Classes = np.array([1, 1, 1, 0])


def right_on(count: int) -> NDArray[np.float32]:
    """Logits that are right on the first ``count`` samples and wrong on the others."""
    answers = np.where(np.arange(len(LABELS)) < count, LABELS, 1 - LABELS)
    return np.eye(2, dtype=np.float32)[answers]


def evaluated(answers: list[tuple[str, Role, NDArray[np.float32], int]], train: Classes | None = TRAIN) -> Evaluation:
    return compare(
        task="reviews",
        split="dev",
        source="dev.jsonl",
        metric="accuracy",
        classes=2,
        labels=LABELS,
        train_labels=train,
        answers=answers,
    )


ALL: list[tuple[str, Role, NDArray[np.float32], int]] = [
    ("student", "student", right_on(8), 100),
    ("alone", "without-teachers", right_on(6), 100),
    ("bert", "teacher", right_on(9), 400),
    ("roberta", "teacher", right_on(10), 500),
]


def test_every_model_is_scored_and_keeps_its_role_and_size() -> None:
    found = evaluated(ALL)
    assert [(model.name, model.role, model.scores["accuracy"], model.parameters) for model in found.models] == [
        ("student", "student", 0.8, 100),
        ("alone", "without-teachers", 0.6, 100),
        ("bert", "teacher", 0.9, 400),
        ("roberta", "teacher", 1.0, 500),
        ("majority class", "majority", 0.5, None),
    ]
    assert (found.task, found.split, found.rows, found.source, found.metric) == ("reviews", "dev", 10, "dev.jsonl", "accuracy")


def test_retention_is_the_share_of_the_best_teachers_score() -> None:
    weaker = [ALL[0], ALL[2]]
    assert [model.retention for model in evaluated(ALL).models] == pytest.approx([0.8, 0.6, 0.9, 1.0, None])
    assert evaluated(weaker).student.retention == pytest.approx(0.8 / 0.9)


def test_without_a_teacher_there_is_no_retention() -> None:
    found = evaluated(ALL[:2])
    assert [model.retention for model in found.models] == [None, None, None]
    assert found.best_teacher is None


def test_a_teacher_that_scores_nothing_gives_no_retention() -> None:
    assert evaluated([ALL[0], ("bert", "teacher", right_on(0), 1)]).student.retention is None


def test_roles_are_found() -> None:
    found = evaluated(ALL)
    assert found.student.name == "student"
    assert found.best_teacher is not None
    assert found.best_teacher.name == "roberta"
    alone, majority = found.of("without-teachers"), found.of("majority")
    assert alone is not None
    assert alone.name == "alone"
    assert majority is not None
    assert evaluated(ALL[:1], train=None).of("teacher") is None


def test_the_majority_answers_the_class_that_is_most_frequent_in_training_in_every_metric() -> None:
    majority = evaluated(ALL).of("majority")
    assert majority is not None
    assert majority.scores == pytest.approx(
        {"accuracy": 0.5, "f1": 2 / 3, "macro-f1": 1 / 3, "weighted-f1": 1 / 3, "matthews": 0.0}
    )
    other = evaluated(ALL, train=np.array([0, 0, 1])).of("majority")
    assert other is not None
    assert other.scores["f1"] == 0.0


def test_without_training_labels_there_is_no_majority_row() -> None:
    assert evaluated(ALL, train=None).of("majority") is None


def test_the_document_is_read_back_as_it_was_written() -> None:
    found = evaluated(ALL)
    text = json.dumps(found.model_dump())
    assert Evaluation.model_validate_json(text) == found
    with pytest.raises(ValidationError):
        Evaluation.model_validate(found.model_dump() | {"surprise": 1})
