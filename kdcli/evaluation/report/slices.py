"""Where the student loses most: the slices in which it clearly loses more than elsewhere, and those that are only next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.document import AgreementTable, Evaluation
from kdcli.evaluation.report.verdict import main_model, subject
from kdcli.tasks.metric import LEVEL

_MOST = 12


@dataclass(frozen=True)
class LostSlices:
    """The slices in which a student loses against one teacher.

    Attributes:
        student, teacher: who.
        clear: those where it loses significantly more than elsewhere.
        others: the next ones.
    """

    student: str
    teacher: str
    clear: Sequence[Slice]
    others: Sequence[Slice]


def lost_slices(table: AgreementTable) -> LostSlices:
    """The first slices in which the student loses at all."""
    lost = [each for each in table.slices if each.difference < 0][:_MOST]
    clear = [each for each in lost if each.p_value <= LEVEL]
    return LostSlices(table.student, table.teacher, clear, [each for each in lost if each not in clear])


def nowhere_clear(evaluation: Evaluation, found: Sequence[LostSlices]) -> str:
    """Says against whom the student has no slice that stands out; empty where it has one against each teacher."""
    without = [each.teacher for each in found if not each.clear]
    if not without:
        return ""
    against = f" against {' and '.join(without)}" if len(without) < len(found) else ""
    return f"{subject(evaluation, main_model(evaluation))} lost nowhere clearly more than elsewhere{against}."
