"""What the student inherited: the table by hand, the slices against scipy and against a loss that was put in."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from kdcli.data.task import Split
from kdcli.errors import RequestError
from kdcli.evaluation.agreement import Agreement, Slice, agreement, changed_rows, losing_by_chance, slices
from kdcli.tasks.class_metrics import Classes
from kdcli.tasks.classification import Classification

NAMES = ("bad", "good", "so-so")
LABELS: Classes = np.array([0, 0, 1, 1, 2, 2])
TEACHER: Classes = np.array([0, 0, 1, 0, 0, 1])
STUDENT: Classes = np.array([0, 1, 1, 1, 0, 0])
THREE = Classification(NAMES, NAMES)
ACCURACY = THREE.metric("accuracy")


def agreed(teacher: Classes, student: Classes, labels: Classes) -> Agreement:
    found = agreement(ACCURACY, teacher, student, labels)
    assert found is not None
    return found


def split_of(texts: list[str], labels: Classes, pairs: list[str] | None = None) -> Split:
    return Split(texts, pairs, labels, "dev.jsonl", "0" * 16)


def some_texts(count: int, seed: int) -> list[str]:
    """Of 40 words, the first far more frequent than the last, 3 to 20 in a text."""
    generator = np.random.default_rng(seed)
    chances = 1 / np.arange(1, 41)
    words = np.array([f"w{index}" for index in range(40)])
    return [" ".join(generator.choice(words, generator.integers(3, 21), p=chances / chances.sum())) for _ in range(count)]


def with_loss(texts: list[str], seed: int, everywhere: float, word: str = "", there: float = 0.0) -> tuple[Classes, ...]:
    """Labels, a teacher that is right on 9 of 10, and a student that loses so often, in texts with the word so often."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=len(texts))
    teacher = np.where(generator.random(len(texts)) < 0.9, labels, 1 - labels)
    having = np.array([word in text.split() for text in texts])
    worse = generator.random(len(texts)) < np.where(having, there, everywhere)
    return labels, teacher, np.where(worse, 1 - teacher, teacher)


def test_the_four_cells_and_the_changed_samples_are_those_worked_out_by_hand() -> None:
    found = agreed(TEACHER, STUDENT, LABELS)
    assert found.both_right.tolist() == [0, 2]
    assert found.lost.tolist() == [1]
    assert found.gained.tolist() == [3]
    assert found.both_wrong.tolist() == [4, 5]
    assert found.changed.tolist() == [1, 3, 5]
    assert found.table == ((2, 1), (1, 2))


def test_the_table_equals_the_confusion_matrix_of_being_right() -> None:
    labels, teacher, student = with_loss(some_texts(200, 1), 1, 0.1)
    expected = confusion_matrix(teacher == labels, student == labels, labels=[True, False])
    assert agreed(teacher, student, labels).table == tuple(tuple(row) for row in expected.tolist())


def test_predictions_of_unequal_length_are_refused() -> None:
    with pytest.raises(RequestError, match="do not belong to the labels"):
        agreed(TEACHER, STUDENT[:-1], LABELS)


def test_changed_samples_can_be_written_as_csv() -> None:
    rows = changed_rows(split_of(list("abcdef"), LABELS), THREE, ACCURACY, TEACHER, STUDENT)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    assert file.getvalue().splitlines() == [
        "row,change,label,teacher,student,text",
        "1,lost,bad,bad,good,b",
        "3,gained,good,bad,good,d",
        "5,wrong in another way,so-so,good,bad,f",
    ]


def test_changed_samples_of_pairs_have_both_texts() -> None:
    rows = changed_rows(split_of(list("abcdef"), LABELS, list("uvwxyz")), THREE, ACCURACY, TEACHER, STUDENT)
    assert [(row["text"], row["pair"]) for row in rows] == [("b", "v"), ("d", "x"), ("f", "z")]


def test_without_a_change_there_are_no_rows() -> None:
    assert changed_rows(split_of(list("abcdef"), LABELS), THREE, ACCURACY, TEACHER, TEACHER) == []


def slice_named(found: list[Slice], kind: str, name: str) -> Slice:
    return next(each for each in found if (each.kind, each.name) == (kind, name))


def test_a_slice_has_the_numbers_of_its_samples() -> None:
    texts = ["Not good", "it's NOT not", "fine", "very fine indeed", "fine fine fine fine", "nothing"]
    found = slices(split_of(texts, LABELS), THREE, ACCURACY, TEACHER, STUDENT, least=1)
    word = slice_named(found, "word", "not")
    assert (word.samples, word.teacher, word.student, word.difference) == (2, 1.0, 0.5, -0.5)
    assert word.elsewhere == pytest.approx(0.25)
    label = slice_named(found, "label", "good")
    assert (label.samples, label.teacher, label.student, label.elsewhere) == (2, 0.5, 1.0, -0.25)
    lengths = [(each.name, each.samples) for each in found if each.kind == "length"]
    assert sorted(lengths) == [("1–1 words", 2), ("2–2 words", 1), ("3–3 words", 2), ("4–4 words", 1)]
    assert {each.name for each in found if each.kind == "word"} == {
        "not", "good", "it's", "fine", "very", "indeed", "nothing"
    }  # fmt: skip


def test_the_second_text_of_a_pair_counts() -> None:
    split = split_of(["a", "a", "b", "b", "b", "b"], LABELS, ["x", "y", "x x", "x", "y", "y"])
    found = slices(split, THREE, ACCURACY, TEACHER, STUDENT, least=1)
    assert slice_named(found, "word", "x").samples == 3
    assert slice_named(found, "length", "3–3 words").samples == 1


def test_slices_that_are_too_small_or_hold_nearly_everything_are_left_out() -> None:
    texts = ["the film"] * 30 + ["the play"] * 10
    labels, teacher, student = with_loss(texts, 1, 0.1)
    found = slices(split_of(texts, labels), THREE, ACCURACY, teacher, student, least=10)
    assert sorted(each.name for each in found if each.kind == "word") == ["film", "play"]
    assert [each for each in found if each.kind == "length"] == []
    assert slices(split_of(texts, labels), THREE, ACCURACY, teacher, student, least=50) == []


def test_a_loss_that_was_put_in_comes_first_and_is_significant() -> None:
    texts = some_texts(800, 3)
    labels, teacher, student = with_loss(texts, 3, 0.03, "w9", 0.4)
    found = slices(split_of(texts, labels), THREE, ACCURACY, teacher, student)
    assert (found[0].kind, found[0].name) == ("word", "w9")
    assert found[0].p_value < 0.001
    assert found[0].difference < -0.2 < found[0].elsewhere


def test_in_at_most_1_of_20_runs_is_noise_sold_as_a_finding() -> None:
    """The student loses the same everywhere, and a lot."""
    wrong = 0
    for seed in range(150):
        texts = some_texts(150, seed)
        labels, teacher, student = with_loss(texts, seed, 0.15)
        wrong += slices(split_of(texts, labels), THREE, ACCURACY, teacher, student)[0].p_value <= 0.05
    assert wrong / 150 <= 0.075


@pytest.mark.parametrize(("size", "lost_here", "gained_here"), [(10, 3, 0), (10, 2, 1), (6, 1, 1), (12, 0, 2), (10, 0, 0)])
def test_the_p_value_equals_that_of_permuting_the_samples(size: int, lost_here: int, gained_here: int) -> None:
    samples, lost, gained = 40, 5, 4
    change = np.array([-1] * lost + [1] * gained + [0] * (samples - lost - gained))
    generator = np.random.default_rng(0)
    net = generator.permuted(np.tile(change, (20_000, 1)), axis=1)[:, :size].sum(1)
    expected = np.mean(net <= gained_here - lost_here)
    assert losing_by_chance(size, lost_here, gained_here, samples, lost, gained) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize(("size", "lost_here"), [(50, 8), (300, 20), (20, 0)])
def test_where_nothing_was_gained_it_is_fishers_exact_test(size: int, lost_here: int) -> None:
    table = [[lost_here, 30 - lost_here], [size - lost_here, 570 - size + lost_here]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert losing_by_chance(size, lost_here, 0, 600, 30, 0) == pytest.approx(expected)


def test_where_nothing_changed_nothing_is_lost() -> None:
    assert losing_by_chance(10, 0, 0, 40, 0, 0) == 1.0
