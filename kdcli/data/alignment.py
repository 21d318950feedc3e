"""Which teacher tokens a student token overlaps, when the two models split the same text differently.

Both tokenizers say where in the text each of their tokens stands. A student token's counterpart is the run of teacher
tokens that share a character with it; special tokens meet the special tokens at the same place ([CLS] with <s>, what
closes a text with what closes it). A token without a counterpart (the teacher truncated earlier, a normaliser dropped the
characters) has an empty run: loss terms leave it out and it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdcli.data.tokens import TokenView


@dataclass(frozen=True)
class Alignment:
    """Runs of teacher tokens, flat over the student's tokens: student token s meets teacher tokens first[s]:last[s].

    Attributes:
        first: begin of the run, counted from the sample's first teacher token.
        last: one behind the run; ``first == last`` where there is no counterpart.
        identity: both sides have the same tokens, so that nothing needs to be moved.
    """

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    identity: bool

    @property
    def unmatched(self) -> float:
        """The fraction of student tokens without a counterpart."""
        return float(np.mean(self.first == self.last)) if len(self.first) else 0.0


def align(student: TokenView, teacher: TokenView) -> Alignment:
    """Align every sample of a split; linear in the number of tokens.

    All tokens are laid out on one axis (sample after sample, region after region, character after character), on which
    the tokens that overlap an interval are found by two binary searches.
    """
    if student.fingerprint == teacher.fingerprint and np.array_equal(student.bounds, teacher.bounds):
        own = _position_in_sample(student)
        return Alignment(own, (own + 1).astype(np.int32), identity=True)
    room = 2 + int(max(student.ends.max(initial=0), teacher.ends.max(initial=0)))
    student_start, student_end = _on_axis(student, room)
    teacher_start, teacher_end = _on_axis(teacher, room)
    first = np.searchsorted(teacher_end, student_start, side="right")
    last = np.searchsorted(teacher_start, student_end, side="left")
    empty = (last <= first) | (student_start == student_end)
    sample_of = np.repeat(np.arange(len(student)), student.lengths)
    origin = teacher.bounds[sample_of]
    first, last = (np.where(empty, 0, place - origin) for place in (first, last))
    return Alignment(first.astype(np.int32), last.astype(np.int32), identity=False)


def _on_axis(view: TokenView, room: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and end of every token on the common axis; special tokens fill a place of width 1 in their region."""
    sample = np.repeat(np.arange(len(view), dtype=np.int64), view.lengths)
    origin = (sample * 5 + view.regions) * room
    special = view.regions % 2 == 0
    start = origin + np.where(special, 0, view.starts)
    end = origin + np.where(special, 1, view.ends)
    return np.maximum.accumulate(start), np.maximum.accumulate(end)


def _position_in_sample(view: TokenView) -> NDArray[np.int32]:
    sample = np.repeat(np.arange(len(view)), view.lengths)
    return (np.arange(len(view.ids)) - view.bounds[sample]).astype(np.int32)
