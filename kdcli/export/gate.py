"""Whether a file says what the model says: on real text at several shapes, and on a whole split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.data.batching import sorted_batches
from kdcli.data.cutting import Cutter
from kdcli.export.sessions import run

TOLERANCE = 1e-3
BATCHES = (1, 8, 32)
_QUANTILES = (0.1, 0.5, 1.0)

Logits = NDArray[np.float32]
Score = Callable[[NDArray[np.int64]], float]
Interval = Callable[[NDArray[np.int64]], tuple[float, float]]


@dataclass(frozen=True)
class Texts:
    """Tokenised texts, as they are held against a file: alone, and in batches padded on the right.

    Attributes:
        rows: inputs of each text, by name.
        padding: by input, the value of padding.
    """

    rows: list[dict[str, list[int]]]
    padding: dict[str, int]

    @staticmethod
    def of(tokenizer: Any, texts: Sequence[Any], max_length: int) -> Texts:
        """Texts, or pairs of texts."""
        if getattr(tokenizer, "is_fast", False):
            texts = Cutter(tokenizer, max_length).samples(texts)
        pairs = isinstance(texts[0], tuple)
        columns = [list(column) for column in zip(*texts, strict=True)] if pairs else [list(texts)]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length)
        names = list(encoded)
        padding = {"input_ids": int(tokenizer.pad_token_id), "token_type_ids": int(tokenizer.pad_token_type_id)}
        rows = [{name: encoded[name][row] for name in names} for row in range(len(texts))]
        return Texts(rows, {name: padding.get(name, 0) for name in names})

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.array([len(row["input_ids"]) for row in self.rows], dtype=np.int64)

    def batch(self, chosen: Sequence[int] | NDArray[np.int64], length: int | None = None) -> dict[str, NDArray[np.int64]]:
        """Inputs [B, L] of some of the texts, padded to the longest of them (or to ``length``, by which they are cut too)."""
        rows = [self.rows[row] for row in chosen]
        width = length or max(len(row["input_ids"]) for row in rows)
        return {
            name: np.array([(row[name] + [filler] * width)[:width] for row in rows], dtype=np.int64)
            for name, filler in self.padding.items()
        }

    def filled(self, batch: int, length: int) -> dict[str, NDArray[np.int64]]:
        """Inputs [B, L] without any padding: texts one after another, without their first and last tokens in between."""
        inner = [row["input_ids"][1:-1] for row in self.rows if len(row["input_ids"]) > 2]
        every = np.concatenate(inner or [row["input_ids"] for row in self.rows])
        repeated = np.resize(every, (batch, length)).astype(np.int64)
        first, last = self.rows[0]["input_ids"][0], self.rows[0]["input_ids"][-1]
        repeated[:, 0], repeated[:, -1] = first, last
        filled = {name: np.zeros((batch, length), dtype=np.int64) for name in self.padding}
        return filled | {"input_ids": repeated, "attention_mask": np.ones((batch, length), dtype=np.int64)}

    def shapes(self) -> list[list[int]]:
        """Rows for batches of 1, 8 and 32 at a short, a middling and the longest length; shorter texts are among them."""
        order = np.argsort(self.lengths, kind="stable")
        found = []
        for quantile in _QUANTILES:
            top = round(quantile * (len(order) - 1))
            found += [order[np.linspace(top, 0, batch).astype(int)].tolist() for batch in BATCHES]
        return found


@dataclass(frozen=True)
class ShapeCheck:
    """Both engines on one batch.

    Attributes:
        batch, length: shape of the inputs.
        max_difference: largest difference of a logit; infinite where one is not finite.
        agreement: fraction of samples with the same class.
    """

    batch: int
    length: int
    max_difference: float
    agreement: float


@dataclass(frozen=True)
class SplitCheck:
    """Both engines on all texts.

    Attributes:
        rows: how many there are.
        max_difference: largest difference of a logit.
        agreement: fraction of samples with the same class.
        metric: by which they are scored; None where nobody knows the classes, and then there is no score.
        score, interval: the file's, as fractions, and its 95 % interval.
        drop: by how many points the file scores lower than the model (negative: higher); without classes, the share of samples
            that changed their class, in points, which accuracy cannot lose more than.
    """

    rows: int
    max_difference: float
    agreement: float
    metric: str | None
    score: float | None
    interval: tuple[float, float] | None
    drop: float


@dataclass(frozen=True)
class Check:
    """What was found out about one file."""

    shapes: list[ShapeCheck]
    split: SplitCheck

    def broken(self, exact: bool, max_drop: float) -> str | None:
        """What is wrong with the file, or None.

        Args:
            exact: it must say what the model says to within :data:`TOLERANCE`, and not only as well.
            max_drop: points that it may lose.
        """
        if not np.isfinite([row.max_difference for row in self.shapes] + [self.split.max_difference]).all():
            return "it answers with numbers that are not finite"
        worst = max(self.shapes, key=lambda row: row.max_difference)
        if exact and worst.max_difference > TOLERANCE:
            return (
                f"largest logit difference {worst.max_difference:.2e} at batch {worst.batch}, length {worst.length}, "
                f"where {TOLERANCE:g} is allowed"
            )
        if exact and self.split.max_difference > TOLERANCE:
            return (
                f"largest logit difference {self.split.max_difference:.2e} on {self.split.rows} texts, "
                f"where {TOLERANCE:g} is allowed"
            )
        if exact and min(row.agreement for row in self.shapes) < 1.0:
            return "some texts change their class"
        if self.split.drop > max_drop + 1e-9:
            lost = f"{self.split.drop:.2f} points"
            what = f"{lost} of {self.split.metric}" if self.split.metric else f"{lost} of the texts change their class"
            return f"it loses {what} on {self.split.rows} texts, where --max-drop allows {max_drop:g}"
        return None


@dataclass(frozen=True)
class Examiner:
    """Holds files against what the model says.

    Attributes:
        texts: a split's.
        reference: logits [n, C] of the model.
        order: column of the logits by class of the task.
        metric, score, interval: how predicted classes [n] are judged; None where nobody knows the right ones.
    """

    texts: Texts
    reference: Logits
    order: Sequence[int]
    metric: str | None = None
    score: Score | None = None
    interval: Interval | None = None

    def check(self, session: Any) -> Check:
        """Run a file over the shapes and over all texts."""
        shapes = []
        for rows in self.texts.shapes():
            inputs = self.texts.batch(rows)
            theirs = run(session, inputs)
            difference, agreement = _compared(self.reference[rows], theirs)
            batch, length = inputs["input_ids"].shape
            shapes.append(ShapeCheck(batch, length, difference, agreement))
        return Check(shapes, self._split(answers(lambda inputs: run(session, inputs), self.texts)))

    def harm(self, session: Any, rows: int = 64) -> float:
        """Mean absolute change of a logit on some of the texts; infinite where one is not finite."""
        chosen = np.linspace(0, len(self.texts.rows) - 1, min(rows, len(self.texts.rows))).astype(int)
        theirs = run(session, self.texts.batch(chosen))
        return float(np.abs(theirs - self.reference[chosen]).mean()) if np.isfinite(theirs).all() else float("inf")

    def _split(self, logits: Logits) -> SplitCheck:
        difference, agreement = _compared(self.reference, logits)
        if self.score is None or self.interval is None or not np.isfinite(logits).all():
            return SplitCheck(len(logits), difference, agreement, None, None, None, 100.0 * (1.0 - agreement))
        ours, theirs = (values[:, list(self.order)].argmax(-1) for values in (self.reference, logits))
        score = self.score(theirs)
        drop = 100.0 * (self.score(ours) - score)
        return SplitCheck(len(logits), difference, agreement, self.metric, score, self.interval(theirs), drop)


def answers(ask: Callable[[dict[str, NDArray[np.int64]]], Logits], texts: Texts, batch: int = 32) -> Logits:
    """Logits [n, C] of all texts, asked in batches of like length."""
    parts, places = [], []
    for rows in sorted_batches(texts.lengths, batch):
        parts.append(ask(texts.batch(rows)))
        places.append(rows)
    found = np.empty_like(np.concatenate(parts))
    found[np.concatenate(places)] = np.concatenate(parts)
    return found


def _compared(ours: Logits, theirs: Logits) -> tuple[float, float]:
    """Largest difference and share of the same classes."""
    difference = float(np.abs(ours - theirs).max()) if np.isfinite([ours, theirs]).all() else float("inf")
    return difference, float(np.mean(ours.argmax(-1) == theirs.argmax(-1)))
