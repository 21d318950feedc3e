"""An evaluation in the terminal, wide and narrow."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from kdcli.cli.evaluation_view import evaluation_view
from kdcli.evaluation.comparison import compare
from kdcli.evaluation.document import Evaluation
from kdcli.evaluation.gates import Gate, with_gates
from tests.evaluation.test_comparison import ALL, answer, task


def printed(evaluation: Evaluation, width: int) -> list[str]:
    """The lines on a terminal of some width."""
    out = StringIO()
    Console(file=out, width=width).print(Group(*evaluation_view(evaluation, width)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return with_gates(compare(task(), "dev", ALL), [Gate.parse("min-score", "0.5"), Gate.parse("min-retention", "0.99")])


def test_wide_terminal_says_everything(evaluation: Evaluation) -> None:
    lines = printed(evaluation, 120)
    assert lines[0] == "reviews, dev split, 40 rows"
    assert lines[1].split("  ")[0] == "model"
    for word in ("95 % interval", "of best teacher", "95 % of that", "of ensemble", "params"):
        assert word in lines[1]
    student = next(line for line in lines if line.startswith("student "))
    assert "0.8000" in student
    assert "84.2%" in student
    text = "\n".join(lines)
    assert "student − roberta" in text
    assert "McNemar's exact test, because both answered the same samples" in " ".join(lines)
    assert "Holm's correction for 4 comparisons" in " ".join(lines)
    assert "roberta right     32 (80.0%)      6 (15.0%)" in text
    assert "calibration error (ECE)" in text
    assert "passed  --min-score 0.5: accuracy of student is 0.8000 on dev" in text


def test_broken_gates_are_left_to_the_error(evaluation: Evaluation) -> None:
    assert "--min-retention" not in "\n".join(printed(evaluation, 120))


@pytest.mark.parametrize("width", [60, 80])
def test_narrow_terminal_keeps_names_scores_and_retention(evaluation: Evaluation, width: int) -> None:
    lines = printed(evaluation, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "of best teacher" in lines[1]
    assert "accuracy" in lines[1]
    assert "95 % of that" not in lines[1]


def test_recipes_are_shown_with_their_seeds_and_the_test_that_compares_them() -> None:
    students = [
        answer(f"{recipe}-{seed}", "student", base + seed, recipe=recipe, seed=seed)
        for recipe, base in (("good", 30), ("poor", 20))
        for seed in range(4)
    ]
    text = "\n".join(printed(compare(task(), "dev", students), 100))
    assert "recipe  seeds  mean accuracy  deviation  lowest  highest" in text
    assert "good − poor" in text
    assert "No test, because the difference is the same with each of 4 seeds" in " ".join(text.split())


def test_many_models_are_cut_to_those_that_matter() -> None:
    students = [answer(f"s{count}", "student", count, teachers=("bert",)) for count in range(10, 14)]
    teachers = [answer(name, "teacher", 30 + place) for place, name in enumerate(["bert", *"abcdefghij"])]
    lines = printed(compare(task(), "dev", [*students, *teachers]), 100)
    assert sum(line.startswith("teacher ") for line in lines) == 1
    assert any(line.startswith("teacher j ") for line in lines)


def test_names_are_not_taken_for_markup() -> None:
    named = answer("[bold]x[/]", "student", 30)
    assert any(line.startswith("[bold]x[/] ") for line in printed(compare(task(), "dev", [named]), 100))
