"""Scores class by class, by hand and against scikit-learn's report."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import classification_report

from kdcli.errors import RequestError
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.class_scores import class_scores, confusion, missing_classes

NAMES = ("bad", "so-so", "good", "other")
LABELS: Classes = np.array([0, 0, 0, 2, 2, 2])
ANSWERS: Classes = np.array([0, 0, 1, 2, 2, 0])


def test_each_class_has_the_numbers_worked_out_by_hand() -> None:
    bad, middling, good, other = class_scores(ANSWERS, LABELS, NAMES)
    assert (bad.name, bad.rows, bad.predicted) == ("bad", 3, 3)
    assert (bad.precision, bad.recall, bad.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (good.rows, good.predicted) == (3, 2)
    assert (good.precision, good.recall, good.f1) == pytest.approx((1.0, 2 / 3, 0.8))
    assert (middling.rows, middling.predicted, middling.precision, middling.recall, middling.f1) == (0, 1, 0.0, 0.0, 0.0)
    assert (other.name, other.rows, other.predicted, other.precision, other.recall, other.f1) == ("other", 0, 0, 0.0, 0.0, 0.0)


def test_all_classes_equal_those_of_scikit_learns_report() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=100)
    predictions = np.where(generator.random(100) < 0.7, labels, generator.integers(4, size=100))
    report = classification_report(labels, predictions, target_names=NAMES, output_dict=True)
    for each in class_scores(predictions, labels, NAMES):
        expected = report[each.name]
        assert (each.precision, each.recall, each.f1, each.rows) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
        )
        assert each.predicted == (predictions == NAMES.index(each.name)).sum()


def test_the_table_has_a_row_for_each_gold_class_and_a_column_for_each_answer() -> None:
    assert confusion(ANSWERS, LABELS, 4) == [[2, 1, 0, 0], [0, 0, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_one_class_alone_has_a_table_and_scores_without_a_warning() -> None:
    one = np.array([1, 1])
    assert confusion(one, one, 2) == [[0, 0], [0, 2]]
    assert [each.f1 for each in class_scores(one, one, NAMES[:2])] == [0.0, 1.0]


def test_classes_without_a_sample_are_named() -> None:
    assert missing_classes(LABELS, NAMES) == ["so-so", "other"]
    assert missing_classes(np.array([3, 2, 1, 0]), NAMES) == []


def test_predictions_that_do_not_belong_to_the_labels_are_refused() -> None:
    with pytest.raises(RequestError, match="do not belong to the labels"):
        confusion(ANSWERS[:-1], LABELS, 4)
    with pytest.raises(RequestError, match="do not belong to the labels"):
        class_scores(ANSWERS[:0], LABELS[:0], NAMES)
