"""Slices that stand out, and the sentence where none does."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.comparison import compare
from kdcli.evaluation.document import AgreementTable
from kdcli.evaluation.report.slices import LostSlices, lost_slices, nowhere_clear
from tests.evaluation.report.material import answer, lost, task_of

CLEAR = lost("why", -0.3, 0.05)
NEXT = lost("how", -0.2, 0.06)
NOWHERE = "The student lost nowhere clearly more than elsewhere"


def found(teacher: str, *slices: Slice) -> LostSlices:
    counts = {"both_right": 9, "lost": 3, "gained": 1, "both_wrong": 2, "changed": 4}
    return lost_slices(AgreementTable(student="student", teacher=teacher, **counts, slices=list(slices)))


def test_a_slice_is_clear_up_to_the_level_and_counts_only_with_a_loss() -> None:
    each = found("bert", CLEAR, lost("gained", 0.01, 0.01), NEXT)
    assert (each.clear, each.others) == ([CLEAR], [NEXT])


def test_so_many_slices_are_shown_in_all() -> None:
    each = found("bert", CLEAR, *[lost(f"word {number}", -0.1, 0.9) for number in range(40)])
    assert len(each.clear) + len(each.others) == 12


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [
        ([found("bert", NEXT), found("roberta")], "The student lost nowhere clearly more than elsewhere."),
        (
            [found("bert", CLEAR), found("roberta", NEXT)],
            "The student lost nowhere clearly more than elsewhere against roberta.",
        ),
        ([found("bert", CLEAR), found("roberta", CLEAR, NEXT)], ""),
        ([], ""),
    ],
)
def test_a_sentence_says_against_whom_nothing_stands_out(slices: Sequence[LostSlices], sentence: str) -> None:
    task = task_of(["bad", "good"], 40)
    evaluation = compare(task, "test", [answer(task, "student", "student", 1.5, 1), answer(task, "bert", "teacher", 2.0, 2)])
    assert nowhere_clear(evaluation, slices) == sentence
