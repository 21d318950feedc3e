"""Metrics against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from kdcli.errors import RequestError
from kdcli.evaluation.metrics import Classes, check_metric, score, scores

# true positives 3, false positives 1, false negatives 2, true negatives 4
LABELS: Classes = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
ANSWERS: Classes = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
F1_OF_ONE, F1_OF_ZERO = 6 / 9, 8 / 11


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", 0.7),
        ("f1", F1_OF_ONE),
        ("macro-f1", (F1_OF_ONE + F1_OF_ZERO) / 2),
        ("weighted-f1", 0.5 * F1_OF_ONE + 0.5 * F1_OF_ZERO),
        ("matthews", (3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6)),
    ],
)
def test_each_metric_equals_the_number_worked_out_by_hand(metric: str, expected: float) -> None:
    assert score(metric, ANSWERS, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro-f1", "weighted-f1", "matthews"])
def test_right_answers_score_one(metric: str) -> None:
    assert score(metric, LABELS, LABELS) == 1.0


def test_answers_turned_round_score_minus_one_in_matthews_correlation() -> None:
    assert score("matthews", 1 - LABELS, LABELS) == pytest.approx(-1)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_an_answer_that_is_always_zero_scores_zero_without_a_warning(metric: str) -> None:
    assert score(metric, np.zeros_like(LABELS), LABELS) == 0.0


def test_scores_of_many_classes_equal_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=60)
    logits = generator.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), labels] += 1
    answers = logits.argmax(-1)
    assert scores(logits, labels, 4) == pytest.approx(
        {
            "accuracy": (answers == labels).mean(),
            "macro-f1": f1_score(labels, answers, average="macro"),
            "weighted-f1": f1_score(labels, answers, average="weighted"),
            "matthews": matthews_corrcoef(labels, answers),
        }
    )


def test_two_classes_have_the_f1_of_class_one_too() -> None:
    logits = np.eye(2, dtype=np.float32)[ANSWERS]
    assert scores(logits, LABELS, 2)["f1"] == pytest.approx(F1_OF_ONE)
    assert scores(logits, LABELS, 2)["accuracy"] == pytest.approx(0.7)


def test_a_class_that_occurs_on_neither_side_does_not_count_in_macro_f1() -> None:
    labels, answers = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 0])
    assert score("macro-f1", answers, labels) == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_class_that_is_only_ever_answered_counts_as_zero_in_macro_f1() -> None:
    labels, answers = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    assert score("macro-f1", answers, labels) == pytest.approx((2 / 3 + 0 + 1) / 3)


@pytest.mark.parametrize(("metric", "classes"), [("accuracy", 5), ("f1", 2), ("macro-f1", 3), ("matthews", 7)])
def test_a_metric_that_is_defined_is_allowed(metric: str, classes: int) -> None:
    check_metric(metric, classes)


@pytest.mark.parametrize(("metric", "classes"), [("f1", 3), ("acuracy", 2)])
def test_a_metric_that_is_not_defined_is_refused_with_those_that_are(metric: str, classes: int) -> None:
    with pytest.raises(RequestError, match=rf"--metric {metric}(.|\n)*macro-f1"):
        check_metric(metric, classes)
