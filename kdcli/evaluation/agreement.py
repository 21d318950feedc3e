"""What a student took over from its teacher: where both are right or wrong, and where it lost most."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdcli.data.task import Split
from kdcli.evaluation.significance import holm
from kdcli.tasks.kind import Kind as TaskKind
from kdcli.tasks.metric import Metric, Values, check_lengths

LEAST_SAMPLES = 20
_WORD = re.compile(r"\w+(?:['’]\w+)*")

Kind = Literal["length", "label", "word"]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Teacher right or wrong against student right or wrong (Aguilar et al. 2020), as row numbers in rising order.

    Attributes:
        both_right: rows that both get right.
        lost: rows that only the teacher gets right.
        gained: rows that only the student gets right.
        both_wrong: rows that both get wrong.
        changed: rows that the two answer differently; of those in ``both_wrong`` the ones with another wrong answer.
    """

    both_right: Rows
    lost: Rows
    gained: Rows
    both_wrong: Rows
    changed: Rows

    @property
    def table(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Counts: a row for the teacher right, then wrong; in each the student right, then wrong."""
        return (len(self.both_right), len(self.lost)), (len(self.gained), len(self.both_wrong))


@dataclass(frozen=True)
class Slice:
    """How teacher and student do on the samples that have something in common.

    Attributes:
        kind: by what the samples were chosen.
        name: the class, the word, or the number of words.
        samples: how many there are.
        teacher: the teacher's accuracy on them, as a fraction.
        student: the student's.
        difference: student minus teacher, as a fraction.
        elsewhere: student minus teacher on all other samples.
        p_value: of the student losing no more here than elsewhere, one-sided, corrected for all slices that were looked at.
    """

    kind: Kind
    name: str
    samples: int
    teacher: float
    student: float
    difference: float
    elsewhere: float
    p_value: float

    def row(self) -> dict[str, str | int | float]:
        """The fields in order, for a CSV file."""
        return asdict(self)


def agreement(metric: Metric, teacher: Values, student: Values, targets: Values) -> Agreement | None:
    """The 2×2 table and its samples; None where predictions are never just right. Shapes: predictions, targets [n, …].

    Raises:
        RequestError: not as many predictions as targets, or none.
    """
    check_lengths(targets, teacher, student)
    right, also = metric.right(teacher, targets), metric.right(student, targets)
    if right is None or also is None:
        return None
    differs = (teacher != student).reshape(len(targets), -1).any(-1)
    cells = (right & also, right & ~also, ~right & also, ~right & ~also, differs)
    return Agreement(*(np.flatnonzero(cell) for cell in cells))


def changed_rows(split: Split, kind: TaskKind, metric: Metric, teacher: Values, student: Values) -> list[dict[str, str | int]]:
    """The samples that teacher and student answer differently, for a CSV file.

    Args:
        split: labelled samples.
        kind: of the task.
        metric: by which predictions are right or wrong.
        teacher: predictions [n, …].
        student: predictions [n, …].
    """
    assert split.targets is not None
    found = agreement(metric, teacher, student, split.targets)
    if found is None:
        return []
    change = dict.fromkeys(found.lost, "lost") | dict.fromkeys(found.gained, "gained")
    return [
        {
            "row": int(row),
            "change": change.get(row, "wrong in another way"),
            "label": kind.written(split.targets[row]),
            "teacher": kind.written(teacher[row]),
            "student": kind.written(student[row]),
            "text": split.texts[row],
            **({"pair": split.pairs[row]} if split.pairs is not None else {}),
        }
        for row in found.changed
    ]


def slices(
    split: Split, kind: TaskKind, metric: Metric, teacher: Values, student: Values, least: int = LEAST_SAMPLES
) -> list[Slice]:
    """Slices by length, label and word, those first where the student most clearly loses more than elsewhere.

    Length is in words and cut at the quartiles; a word counts once per sample, whatever its case. The p-values are exact and
    corrected by Holm over all slices returned, so that a word among hundreds has to stand out.

    Args:
        split: labelled samples.
        kind: of the task.
        metric: by which predictions are right or wrong.
        teacher: predictions [n, …].
        student: predictions [n, …].
        least: samples that a slice needs, and that have to be left elsewhere.
    """
    assert split.targets is not None
    check_lengths(split.targets, teacher, student)
    right, also = metric.right(teacher, split.targets), metric.right(student, split.targets)
    if right is None or also is None:
        return []
    members = [each for each in _members(split, kind) if least <= len(each[2]) <= len(split) - max(least, 1)]
    found = [_slice(of, name, rows, right, also) for of, name, rows in members]
    corrected = holm([each.p_value for each in found])
    order = sorted(range(len(found)), key=lambda index: (found[index].p_value, found[index].difference))
    return [replace(found[index], p_value=corrected[index]) for index in order]


def _members(split: Split, task_kind: TaskKind) -> Iterator[tuple[Kind, str, Rows]]:
    """Every slice's kind, name and rows."""
    assert split.targets is not None
    words = [_words(split, row) for row in range(len(split))]
    lengths = np.array([len(each) for each in words])
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="inverted_cdf"))
    quarter = np.searchsorted(edges, lengths)
    for index in np.unique(quarter):
        rows = np.flatnonzero(quarter == index)
        yield "length", f"{lengths[rows].min()}–{lengths[rows].max()} words", rows
    for name, rows in task_kind.groups(split.targets):
        yield "label", name, rows
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, each in enumerate(words):
        for word in sorted(set(each)):
            rows_of[word].append(row)
    for word, having in rows_of.items():
        yield "word", word, np.array(having)


def _words(split: Split, row: int) -> list[str]:
    text = split.texts[row] if split.pairs is None else f"{split.texts[row]} {split.pairs[row]}"
    return _WORD.findall(text.lower())


def _slice(kind: Kind, name: str, rows: Rows, teacher: NDArray[np.bool_], student: NDArray[np.bool_]) -> Slice:
    inside = np.zeros(len(teacher), dtype=np.bool_)
    inside[rows] = True
    lost, gained = teacher & ~student, student & ~teacher
    right, also = float(teacher[rows].mean()), float(student[rows].mean())
    return Slice(
        kind=kind,
        name=name,
        samples=len(rows),
        teacher=right,
        student=also,
        difference=also - right,
        elsewhere=float(student[~inside].mean() - teacher[~inside].mean()),
        p_value=losing_by_chance(
            len(rows), int(lost[rows].sum()), int(gained[rows].sum()), len(teacher), int(lost.sum()), int(gained.sum())
        ),
    )


def losing_by_chance(size: int, lost_here: int, gained_here: int, samples: int, lost: int, gained: int) -> float:
    """How often a slice drawn at random loses at least as many samples net as this one.

    The exact permutation test of which samples are in the slice: of its members, so many changed (hypergeometric), and of
    those, so many were lost (hypergeometric again).

    Args:
        size: samples of the slice.
        lost_here: of them, those that only the teacher gets right.
        gained_here: of them, those that only the student gets right.
        samples: how many there are in all.
        lost: of all, those that only the teacher gets right.
        gained: of all, those that only the student gets right.
    """
    from scipy import stats

    first, last = stats.hypergeom.ppf([1e-14, 1 - 1e-14], samples, lost + gained, size)
    changed = np.arange(first, last + 1)
    enough = np.ceil((changed + lost_here - gained_here) / 2)  # lost − gained ≥ that of the slice, lost + gained = changed
    share = stats.hypergeom.sf(enough - 1, lost + gained, lost, changed)
    return min(1.0, float((stats.hypergeom.pmf(changed, samples, lost + gained, size) * share).sum()))
