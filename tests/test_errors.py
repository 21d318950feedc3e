"""How errors read, and which exit code each has."""

from __future__ import annotations

import pytest

from kdcli.errors import (
    GateError,
    InterruptedRunError,
    KdcliError,
    Problem,
    Problems,
    RequestError,
    RunFailedError,
    did_you_mean,
)


def test_problem_reads_as_place_sentence_and_aligned_details() -> None:
    problem = Problem("mine.yaml:7  layers.bert", "layer 14 does not exist", "0..12", "{4: 14}", "layers: uniform")
    assert str(problem) == (
        "mine.yaml:7  layers.bert: layer 14 does not exist\n  expected  0..12\n  found     {4: 14}\n  try       layers: uniform"
    )


def test_problem_leaves_out_what_is_not_known() -> None:
    assert str(Problem("", "the file is empty")) == "the file is empty"
    assert (
        str(Problem("train.csv", "the file is empty", found="0 bytes")) == "train.csv: the file is empty\n  found     0 bytes"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [(KdcliError, 3), (GateError, 1), (RequestError, 2), (RunFailedError, 3), (InterruptedRunError, 130)],
)
def test_kind_of_error_decides_the_exit_code(error: type[KdcliError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, KdcliError)


def test_request_error_takes_one_problem_or_many_and_says_them_all() -> None:
    one, two = Problem("--seed", "is not a number"), Problem("--device", "is unknown")
    assert RequestError(one).problems == (one,)
    both = RequestError([one, two])
    assert both.problems == (one, two)
    assert str(both) == "--seed: is not a number\n--device: is unknown"


@pytest.mark.parametrize(
    ("word", "known", "question"),
    [
        ("objectve", ["objective", "epochs"], "did you mean 'objective'?"),
        ("xyz", ["objective"], ""),
        ("", ["objective"], ""),
        ("sst", [], ""),
    ],
)
def test_nearest_known_word_is_suggested_only_if_it_is_near(word: str, known: list[str], question: str) -> None:
    assert did_you_mean(word, known) == question


def test_problems_are_collected_and_raised_at_once() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add("--seed", "is not a number", found="x")
    problems.extend(RequestError([Problem("a", "b"), Problem("c", "d")]))
    assert len(problems) == 3
    with pytest.raises(RequestError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == (Problem("--seed", "is not a number", found="x"), Problem("a", "b"), Problem("c", "d"))
