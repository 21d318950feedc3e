"""Whether a model knows anything about a task."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kdcli.evaluation import chance
from kdcli.evaluation.chance import ChanceTest
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.classification import Classification

METRICS = ("accuracy", "f1", "macro-f1", "matthews")
TWO = Classification(("0", "1"), ("0", "1"))


def against_chance(logits: NDArray[np.float32], gold: Classes, metric: str) -> ChanceTest:
    return chance.against_chance(TWO, TWO.metric(metric), logits, gold)


def labels(share_of_ones: float = 0.5, count: int = 200) -> Classes:
    return (np.random.default_rng(1).random(count) < share_of_ones).astype(np.int64)


def logits(answers: Classes) -> NDArray[np.float32]:
    return np.eye(2, dtype=np.float32)[answers]


def partly_right(gold: Classes, share: float, seed: int = 2) -> Classes:
    """Answers that are right on a share of the samples and wrong on the others."""
    right = np.random.default_rng(seed).random(len(gold)) < share
    return np.where(right, gold, 1 - gold)


@pytest.mark.parametrize(("metric", "seed"), [("accuracy", 10), ("accuracy", 11), ("matthews", 12)])
def test_random_answers_are_at_chance(metric: str, seed: int) -> None:
    answers = np.random.default_rng(seed).integers(2, size=200)
    assert against_chance(logits(answers), labels(), metric).at_chance


@pytest.mark.parametrize("metric", METRICS)
def test_informed_answers_are_not_at_chance(metric: str) -> None:
    test = against_chance(logits(partly_right(labels(), 0.65)), labels(), metric)
    assert not test.at_chance
    assert test.p_value < 0.01


@pytest.mark.parametrize(("metric", "answer"), [("accuracy", 0), ("accuracy", 1), ("f1", 1), ("matthews", 0)])
def test_always_the_same_answer_is_at_chance(metric: str, answer: int) -> None:
    gold = labels(0.8)
    test = against_chance(logits(np.full_like(gold, answer)), gold, metric)
    assert test.at_chance
    assert test.p_value == 1.0


def test_wrong_on_purpose_is_at_chance() -> None:
    assert against_chance(logits(1 - labels()), labels(), "accuracy").p_value == 1.0


def test_informed_but_less_accurate_than_the_majority_class_is_at_chance_in_accuracy_alone() -> None:
    gold = labels(0.9, 400)
    answers = np.where(gold == 0, 0, (np.random.default_rng(3).random(400) < 0.8).astype(np.int64))
    test = against_chance(logits(answers), gold, "accuracy")
    assert test.p_value < 0.01
    assert test.score < test.majority
    assert test.at_chance
    assert not against_chance(logits(answers), gold, "matthews").at_chance


def test_it_reports_score_and_majority() -> None:
    gold = np.array([0, 0, 0, 1])
    test = against_chance(logits(np.array([0, 0, 1, 1])), gold, "accuracy")
    assert (test.score, test.majority) == (0.75, 0.75)


def test_the_p_value_is_the_share_of_shuffles_that_score_as_well() -> None:
    """Of the six ways to place two ones among four answers one is right: p is near 1/6."""
    gold = np.array([0, 0, 1, 1])
    assert against_chance(logits(gold), gold, "accuracy").p_value == pytest.approx(1 / 6, abs=0.05)


def test_the_same_answers_get_the_same_p_value() -> None:
    answers = logits(partly_right(labels(), 0.55))
    assert against_chance(answers, labels(), "accuracy") == against_chance(answers, labels(), "accuracy")


def test_the_majority_class_is_that_of_the_training_split() -> None:
    assert TWO.guess(np.array([2, 2, 0]), 4).tolist() == [2, 2, 2, 2]


def test_what_no_shuffle_reaches_has_one_chance_in_501() -> None:
    assert against_chance(logits(labels()), labels(), "accuracy").p_value == 1 / 501
