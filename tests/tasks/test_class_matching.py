"""Classes of a teacher and classes of the task, matched by name and never by luck."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.data.task import Split, Task
from kdcli.errors import Problem, RequestError
from kdcli.tasks.classification import Classification

WHERE = "--teachers bert=./my-bert"


def task(*labels: str, raw: tuple[str, ...] | None = None) -> Task:
    split = Split(["a"], None, np.zeros(1, dtype=np.int64), "here", "f")
    return Task("mine", Classification(labels, raw or labels), "accuracy", {"train": split, "dev": split})


def match_labels(where: str, head: list[str], wanted: Task, teacher: str | None = None) -> list[int]:
    return wanted.kind.order_of(where, head, "classification", teacher)


def refused(head: list[str], wanted: Task, where: str = WHERE) -> Problem:
    with pytest.raises(RequestError) as caught:
        match_labels(where, head, wanted)
    (problem,) = caught.value.problems
    return problem


def test_order_says_for_each_class_of_the_task_which_output_it_is() -> None:
    assert match_labels(WHERE, ["c", "a", "b"], task("a", "b", "c")) == [1, 2, 0]


@settings(deadline=None, database=None, max_examples=60)
@given(order=st.permutations(range(5)))
def test_any_order_of_the_outputs_is_undone(order: list[int]) -> None:
    labels = ["red", "green", "blue", "black", "white"]
    matched = match_labels(WHERE, [labels[row] for row in order], task(*labels))
    assert [order[row] for row in matched] == list(range(5))


@pytest.mark.parametrize(
    "head",
    [
        ["NOT_ENTAILMENT", "ENTAILMENT"],
        ["not-entailment", "entailment"],
        ["Not Entailment", " entailment "],
        ["not  entailment", "Entailment"],
    ],
)
def test_case_and_separators_do_not_matter(head: list[str]) -> None:
    assert match_labels(WHERE, head, task("entailment", "not_entailment")) == [1, 0]


def test_what_the_files_write_counts_as_a_name() -> None:
    wanted = task("negative", "positive", raw=("0", "1"))
    assert match_labels(WHERE, ["1", "0"], wanted) == [1, 0]
    assert match_labels(WHERE, ["positive", "negative"], wanted) == [1, 0]


def test_nameless_outputs_are_taken_in_order_where_the_files_number_their_classes() -> None:
    wanted = task("negative", "positive", raw=("0", "1"))
    assert match_labels(WHERE, ["LABEL_0", "LABEL_1"], wanted) == [0, 1]
    assert match_labels(WHERE, ["label-0", "label-1"], wanted) == [0, 1]


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (["LABEL_0", "LABEL_1"], task("negative", "positive")),
        (["LABEL_0", "LABEL_1"], task("1", "2")),
        (["LABEL_0", "LABEL_1", "LABEL_2"], task("negative", "positive", raw=("0", "1"))),
        (["LABEL_0", "positive"], task("negative", "positive", raw=("0", "1"))),
        (["negative"], task("negative", "positive")),
        (["negative", "positive", "neutral"], task("negative", "positive")),
        (["negative", "negative"], task("negative", "positive")),
        (["a b", "a_b"], task("a b", "a_b")),
        ([], task("negative", "positive")),
    ],
)
def test_anything_else_is_refused(head: list[str], wanted: Task) -> None:
    assert refused(head, wanted).where == WHERE


def test_refusal_lists_both_sides_and_the_two_ways_out() -> None:
    problem = refused(["ham", "spam"], task("negative", "positive"))
    assert problem.expected == "negative, positive"
    assert problem.found == "ham, spam"
    assert """--set 'teachers.labels.bert=["negative", "positive"]'""" in problem.remedy
    assert "--set teachers.cofinetune.which=all" in problem.remedy


def test_long_lists_are_cut_with_their_length() -> None:
    names = [f"class {row}" for row in range(77)]
    problem = refused(["ham"], task(*names))
    assert problem.expected.startswith("class 0, class 1, ")
    assert problem.expected.endswith("… (77 in all)")
    assert "class 12" not in problem.expected


@pytest.mark.parametrize("where", ["--teachers bert=/my models/tiny model", "--teachers bert=./a=b", WHERE])
def test_remedy_names_the_teacher_whatever_its_path(where: str) -> None:
    assert "teachers.labels.bert=" in refused(["ham", "eggs"], task("a", "b"), where).remedy
    assert "teachers.labels" not in refused(["ham"], task("a", "b"), where).remedy


def test_classes_that_differ_only_in_separators_are_never_mixed_up() -> None:
    for head in itertools.permutations(["a b", "a_b"]):
        refused(list(head), task("a b", "a_b"))
