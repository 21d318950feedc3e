"""An evaluation in the terminal, wide and narrow."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from kdcli.cli.evaluation_view import evaluation_view
from kdcli.cli.printable import Visible
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
def test_narrow_terminal_goes_on_below(evaluation: Evaluation, width: int) -> None:
    lines = printed(evaluation, width)
    assert all(cell_len(line) <= width for line in lines)
    headers = [line for line in lines if line.startswith("model")]
    assert "accuracy" in headers[0]
    assert any("95 % of that" in line for line in headers[1:])


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_every_figure_is_there_at_any_width_and_with_long_names(width: int) -> None:
    names = {
        one.name: f"{one.name}-of-a-run-with-a-name-that-goes-on-and-on-for-sixty-letters" for one in ALL if one != ALL[-1]
    }
    named = [
        replace(one, name=names[one.name], teachers=tuple(names[teacher] for teacher in one.teachers), bytes=1_234_567)
        for one in ALL[:-1]
    ]
    found = compare(task(), "dev", [*named, ALL[-1]])
    lines = printed(found, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "…" not in "\n".join(lines)
    text = " ".join("\n".join(lines).split())
    for model in found.models:
        assert f"{model.scores['accuracy']:.4f}" in text
        assert f"{model.scores['macro-f1']:.4f}" in text
        assert f"{model.interval[0]:.3f}–{model.interval[1]:.3f}" in text
        if model.retention is not None:
            assert f"{model.retention.value:.1%}" in text
            assert f"{model.retention.low:.1%}–{model.retention.high:.1%}" in text
    for one in found.differences:
        assert one.low is not None
        assert one.high is not None
        assert f"{100 * one.low:+.1f} to {100 * one.high:+.1f}" in text
    assert "1.2" in text


def test_the_reference_of_a_share_is_named() -> None:
    one = answer("a", "student", 30, teachers=("bert",))
    other = answer("b", "student", 30, teachers=("roberta",))
    text = "\n".join(printed(compare(task(), "dev", [one, other, *ALL[2:4]]), 120))
    assert "of best teacher: a of bert; b of roberta" in text
    assert "of best teacher: of roberta" in "\n".join(printed(compare(task(), "dev", ALL), 120))


def test_doubts_and_models_without_a_score_stand_below_the_scores() -> None:
    spoilt = replace(ALL[0], name="spoilt", outputs=np.full((40, 2), np.nan, dtype=np.float32))
    weak = answer("weak", "student", 20, teachers=("bert",))
    text = "\n".join(printed(compare(task(), "dev", [weak, spoilt, *ALL[2:4]]), 200))
    assert "spoilt: no score" in text
    assert "weak is at chance" in text


def test_a_terminal_obeys_no_text_from_data() -> None:
    evil = answer("\x1b]0;owned\x07\x9b31m\u202eevil", "student", 30)
    out = StringIO()
    found = compare(task(names=("\x1b[2J", "good")), "dev", [evil])
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    console.push_render_hook(Visible())
    console.print(Group(*evaluation_view(found, 80)))
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out.getvalue())
    assert "evil" in out.getvalue()


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
