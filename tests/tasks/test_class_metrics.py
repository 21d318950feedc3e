"""Metrics against numbers worked out by hand, against scikit-learn and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from kdcli.errors import RequestError
from kdcli.tasks.class_metrics import CLASS_METRICS as METRICS
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.classification import Classification

# true positives 3, false positives 1, false negatives 2, true negatives 4
LABELS: Classes = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
ANSWERS: Classes = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
F1_OF_ONE, F1_OF_ZERO = 6 / 9, 8 / 11
TOPICS = ("autos", "games", "news", "sports")


def task(names: tuple[str, ...]) -> Classification:
    return Classification(names, names)


NOT_VALUES = (
    ("good", "bad", "so-so"), ("3", "2", "1"), ("1", "1", "2"), ("1", "nan", "3"), ("1", "2", "inf"), ("1", "2", "other")
)  # fmt: skip


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
    assert METRICS[metric].score(ANSWERS, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro-f1", "weighted-f1", "matthews", "pearson", "spearman"])
def test_right_answers_score_one(metric: str) -> None:
    assert METRICS[metric].score(LABELS, LABELS) == pytest.approx(1.0, abs=1e-15)


def test_answers_turned_round_score_minus_one_in_matthews_correlation() -> None:
    assert METRICS["matthews"].score(1 - LABELS, LABELS) == pytest.approx(-1)


@pytest.mark.parametrize("metric", ["f1", "matthews", "pearson", "spearman"])
def test_an_answer_that_is_always_zero_scores_zero_without_a_warning(metric: str) -> None:
    assert METRICS[metric].score(np.zeros_like(LABELS), LABELS) == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_two_samples_and_labels_that_are_all_the_same_have_a_correlation_without_a_warning(metric: str) -> None:
    assert METRICS[metric].score(np.array([0, 2]), np.array([1, 2])) == pytest.approx(1.0)
    assert METRICS[metric].score(np.array([0, 2]), np.array([2, 1])) == pytest.approx(-1.0)
    assert METRICS[metric].score(LABELS, np.ones_like(LABELS)) == 0.0
    assert METRICS[metric].score(np.array([1]), np.array([2])) == 0.0


@pytest.mark.parametrize("values", [(1, 2, 3, 4, 5), (-1.0, -0.5, 0.0, 0.5, 1.0)])
def test_pearson_and_spearman_equal_those_of_the_values_by_scipy(values: tuple[float, ...]) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(5, size=80)
    answers = np.clip(labels + generator.integers(-1, 2, size=80), 0, 4)
    said, gold = np.array(values)[answers], np.array(values)[labels]
    assert METRICS["pearson"].score(answers, labels) == pytest.approx(stats.pearsonr(said, gold).statistic)
    assert METRICS["spearman"].score(answers, labels) == pytest.approx(stats.spearmanr(said, gold).statistic)


def test_spearman_of_unevenly_spaced_values_is_that_of_scipy() -> None:
    values = np.array([1, 2, 10])
    labels, answers = np.array([0, 0, 1, 2, 2, 1]), np.array([0, 1, 1, 2, 0, 2])
    assert METRICS["spearman"].score(answers, labels) == pytest.approx(
        stats.spearmanr(values[answers], values[labels]).statistic
    )


def test_scores_of_many_classes_equal_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=60)
    logits = generator.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), labels] += 1
    answers = logits.argmax(-1)
    assert task(TOPICS).scores(logits, labels) == pytest.approx(
        {
            "accuracy": (answers == labels).mean(),
            "macro-f1": f1_score(labels, answers, average="macro"),
            "weighted-f1": f1_score(labels, answers, average="weighted"),
            "matthews": matthews_corrcoef(labels, answers),
        }
    )


def test_two_classes_have_the_f1_of_class_one_too() -> None:
    logits = np.eye(2, dtype=np.float32)[ANSWERS]
    assert task(("bad", "good")).scores(logits, LABELS)["f1"] == pytest.approx(F1_OF_ONE)
    assert task(("bad", "good")).scores(logits, LABELS)["accuracy"] == pytest.approx(0.7)


def test_ratings_have_correlations_too() -> None:
    logits = np.eye(5, dtype=np.float32)[ANSWERS]
    found = task(("1", "2", "3", "4", "5")).scores(logits, LABELS)
    assert (found["pearson"], found["spearman"]) == pytest.approx((found["matthews"], found["matthews"]))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "1"), ["accuracy", "f1", "macro-f1", "weighted-f1", "matthews"]),
        (("1", "2", "3"), ["accuracy", "macro-f1", "weighted-f1", "matthews", "pearson", "spearman"]),
        (("0", "0.5", "1"), ["accuracy", "macro-f1", "weighted-f1", "matthews", "pearson", "spearman"]),
        (("1", "2", "4"), ["accuracy", "macro-f1", "weighted-f1", "matthews", "spearman"]),
        *((names, ["accuracy", "macro-f1", "weighted-f1", "matthews"]) for names in NOT_VALUES),
    ],
)
def test_the_metrics_of_a_task_are_those_that_are_defined_for_its_classes(
    classes: tuple[str, ...], expected: list[str]
) -> None:
    assert list(task(classes).metrics) == expected


def test_a_class_that_occurs_on_neither_side_does_not_count_in_macro_f1() -> None:
    labels, answers = np.array([0, 0, 2, 2]), np.array([0, 0, 2, 0])
    assert METRICS["macro-f1"].score(answers, labels) == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_class_that_is_only_ever_answered_counts_as_zero_in_macro_f1() -> None:
    labels, answers = np.array([0, 0, 2, 2]), np.array([0, 1, 2, 2])
    assert METRICS["macro-f1"].score(answers, labels) == pytest.approx((2 / 3 + 0 + 1) / 3)


@pytest.mark.parametrize(
    ("metric", "classes"),
    [("accuracy", TOPICS), ("f1", ("0", "1")), ("pearson", ("1.5", "2.0", "2.5")), ("spearman", ("-1", "0", "10"))],
)
def test_a_metric_that_is_defined_is_allowed(metric: str, classes: tuple[str, ...]) -> None:
    assert task(classes).metric(metric) is METRICS[metric]


@pytest.mark.parametrize(
    ("metric", "classes", "message"),
    [
        ("f1", TOPICS, "needs two classes, the task has 4(.|\n)*macro-f1"),
        ("acuracy", ("0", "1"), "there is no such metric(.|\n)*macro-f1(.|\n)*spearman"),
        ("pearson", ("0", "1"), "needs three classes or more(.|\n)*matthews"),
        ("pearson", TOPICS, "rising numbers(.|\n)*found +autos, games, news, sports"),
        ("spearman", ("5", "4", "3"), "rising numbers(.|\n)*found +5, 4, 3"),
        ("pearson", ("1", "2", "4"), "evenly spaced(.|\n)*spearman(.|\n)*found +1, 2, 4"),
    ],
)
def test_a_metric_that_is_not_defined_is_refused_with_those_that_are(
    metric: str, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RequestError, match=rf"--metric {metric}: .*{message}"):
        task(classes).metric(metric)
