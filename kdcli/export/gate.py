"""Whether a file says what the model says: on real text at several shapes, and on a whole split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdcli.data.batching import sorted_batches
from kdcli.data.cutting import Cutter
from kdcli.export.sessions import run
from kdcli.tasks.classification import CLASSES
from kdcli.tasks.kind import Kind
from kdcli.tasks.metric import Values

TOLERANCE = 1e-3
PROBABILITY_TOLERANCE = 1e-4
MIN_AGREEMENT = 0.9
SINGLES = 2000
BATCHES = (1, 8, 32)
_QUANTILES = (0.1, 0.5, 1.0)

Logits = NDArray[np.float32]
Score = Callable[[Values, NDArray[np.int64]], float]
Interval = Callable[[Values, NDArray[np.int64]], tuple[float, float]]


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
        ties: samples whose class differs, and between whose two best classes the model itself hardly tells.
    """

    batch: int
    length: int
    max_difference: float
    agreement: float
    ties: int = 0

    @property
    def changed(self) -> int:
        """How many samples have another class."""
        return round((1.0 - self.agreement) * self.batch)


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
        ties: samples whose class differs, where the model itself is as good as undecided.
        probability_difference: largest difference of a probability.
        collapsed: what has become of the classes that the model tells apart, if the file does not; else None.
    """

    rows: int
    max_difference: float
    agreement: float
    metric: str | None
    score: float | None
    interval: tuple[float, float] | None
    drop: float
    ties: int = 0
    probability_difference: float = 0.0
    collapsed: str | None = None

    @property
    def changed(self) -> int:
        """How many samples have another class."""
        return round((1.0 - self.agreement) * self.rows)


@dataclass(frozen=True)
class Check:
    """What was found out about one file.

    Attributes:
        shapes: batches of 1, 8 and 32 texts at three lengths.
        split: all texts, in batches of like length.
        single: the same texts one by one, since ranges that are taken at every call depend on the batch; of more than
            :data:`SINGLES` so many, evenly spread.
        by_agreement: the model itself is at chance, so that its score says nothing about a file: what counts as lost is the
            share of texts that change their class.
        batched, batched_changed: how many different texts the shapes have, and how many of them change their class in any of
            them; a text stands in several shapes.
        decision: what is decided of a text.
    """

    shapes: list[ShapeCheck]
    split: SplitCheck
    single: SplitCheck | None = None
    by_agreement: bool = False
    batched: int = 0
    batched_changed: int = 0
    decision: str = "class"

    @property
    def ties(self) -> int:
        """Texts of the split whose class differs because the model itself hardly tells its two best classes apart."""
        return max(one.ties for one in self._splits)

    def broken(self, exact: bool, max_drop: float) -> str | None:
        """What is wrong with the file, or None.

        Args:
            exact: it must say what the model says, to within :data:`TOLERANCE`, and not only as well.
            max_drop: points that it may lose.
        """
        figures = [row.max_difference for row in self.shapes] + [split.max_difference for split in self._splits]
        if not np.isfinite(figures).all():
            return "it answers with numbers that are not finite"
        inexact = self._inexact() if exact else None
        return inexact or self._loses(max_drop) or self._disagrees()

    @property
    def _splits(self) -> tuple[SplitCheck, ...]:
        return (self.split,) if self.single is None else (self.split, self.single)

    def _inexact(self) -> str | None:
        worst = max(self.shapes, key=lambda row: row.max_difference)
        if worst.max_difference > TOLERANCE:
            return (
                f"largest logit difference {worst.max_difference:.2e} at batch {worst.batch}, length {worst.length}, "
                f"where {TOLERANCE:g} is allowed"
            )
        for split, how in self._named_splits():
            if split.max_difference > TOLERANCE:
                return f"largest logit difference {split.max_difference:.2e} on {how}, where {TOLERANCE:g} is allowed"
            if split.probability_difference > PROBABILITY_TOLERANCE:
                found = f"{split.probability_difference:.2e} on {how}, where {PROBABILITY_TOLERANCE:g} is allowed"
                return f"largest difference of a probability {found}"
            if split.changed > split.ties:
                changed = f"{split.changed - split.ties} of {how} change their {self.decision}"
                return f"{changed}, and the model is not undecided about them"
        if any(row.changed > row.ties for row in self.shapes):
            return f"some texts change their {self.decision}"
        return None

    def _loses(self, max_drop: float) -> str | None:
        for split, how in self._named_splits():
            by_score = split.metric is not None and not self.by_agreement
            drop = split.drop if by_score else 100.0 * (1.0 - split.agreement)
            if drop > max_drop + 1e-9:
                what = (
                    f"it loses {drop:.2f} points of {split.metric}"
                    if by_score
                    else f"{drop:.2f} % of the texts change their {self.decision}"
                )
                return f"{what} on {how}, where --max-drop allows {max_drop:g}"
        return None

    def _disagrees(self) -> str | None:
        for split, how in self._named_splits():
            if split.collapsed is not None:
                return f"{split.collapsed} on {how}"
            if split.agreement < MIN_AGREEMENT - 1e-9:
                return _too_few(self.decision, split.agreement, how)
        rows = self.batched or sum(row.batch for row in self.shapes)
        changed = self.batched_changed if self.batched else sum(row.changed for row in self.shapes)
        if changed > (1.0 - MIN_AGREEMENT) * rows + 1e-9:
            return _too_few(self.decision, 1.0 - changed / rows, f"{rows} texts in batches of 1, 8 and 32")
        return None

    def _named_splits(self) -> list[tuple[SplitCheck, str]]:
        named = [(self.split, f"{self.split.rows} texts")]
        return named if self.single is None else [*named, (self.single, f"{self.single.rows} texts, one by one")]


@dataclass(frozen=True)
class Examiner:
    """Holds files against what the model says.

    Attributes:
        texts: a split's.
        reference: logits [n, C] of the model.
        order: column of the logits by class of the task.
        metric: by which files are scored; None where nobody knows the right classes.
        score, interval: of predicted classes [n] of the given rows [n]; None without a metric.
        by_agreement: the model itself is at chance (see :class:`Check`).
        kind: of task.
    """

    texts: Texts
    reference: Logits
    order: Sequence[int]
    metric: str | None = None
    score: Score | None = None
    interval: Interval | None = None
    by_agreement: bool = False
    kind: Kind = CLASSES

    def check(self, session: Any) -> Check:
        """Run a file over the shapes and over all texts, batched and one by one."""

        def ask(inputs: dict[str, NDArray[np.int64]]) -> Logits:
            return run(session, inputs)

        shapes = []
        changed: dict[int, bool] = {}
        for rows in self.texts.shapes():
            inputs = self.texts.batch(rows)
            ours, theirs = self.reference[rows], ask(inputs)
            batch, length = inputs["input_ids"].shape
            shapes.append(ShapeCheck(batch, length, *self._compared(ours, theirs), self._ties(ours, theirs)))
            for row, differs in zip(rows, self.kind.changed(ours, theirs), strict=True):
                changed[row] = changed.get(row, False) or bool(differs)
        every = np.arange(len(self.texts.rows))
        some = every if len(every) <= SINGLES else np.linspace(0, len(every) - 1, SINGLES).astype(np.int64)
        single = np.concatenate([ask(self.texts.batch([row])) for row in some])
        split = self._split(file_logits(ask, self.texts), every)
        return Check(
            shapes, split, self._split(single, some), self.by_agreement, len(changed), sum(changed.values()), self.kind.decision
        )  # fmt: skip

    def harm(self, session: Any, rows: int = 64) -> float:
        """Mean absolute change of a logit on some of the texts; infinite where one is not finite."""
        chosen = np.linspace(0, len(self.texts.rows) - 1, min(rows, len(self.texts.rows))).astype(int)
        theirs = run(session, self.texts.batch(chosen))
        return float(np.abs(theirs - self.reference[chosen]).mean()) if np.isfinite(theirs).all() else float("inf")

    def _compared(self, ours: Logits, theirs: Logits) -> tuple[float, float]:
        """Largest difference, and share of the samples that are decided alike."""
        difference = float(np.abs(ours - theirs).max()) if np.isfinite([ours, theirs]).all() else float("inf")
        return difference, float(np.mean(~self.kind.changed(ours, theirs)))

    def _ties(self, ours: Logits, theirs: Logits) -> int:
        """How many samples are decided otherwise that the model itself is as good as undecided about."""
        return int(np.sum(self.kind.undecided(ours) & self.kind.changed(ours, theirs)))

    def _split(self, logits: Logits, rows: NDArray[np.int64]) -> SplitCheck:
        reference = self.reference[rows]
        difference, agreement = self._compared(reference, logits)
        if not np.isfinite(logits).all():
            return SplitCheck(len(logits), difference, agreement, None, None, None, 100.0 * (1.0 - agreement))
        found = SplitCheck(
            len(logits), difference, agreement, None, None, None, 100.0 * (1.0 - agreement),
            ties=self._ties(reference, logits),
            probability_difference=self.kind.probability_difference(reference, logits),
            collapsed=self.kind.collapsed(reference, logits),
        )  # fmt: skip
        if self.score is None or self.interval is None:
            return found
        ours, theirs = (self.kind.predictions(values[:, list(self.order)]) for values in (reference, logits))
        score = self.score(theirs, rows)
        drop = 100.0 * (self.score(ours, rows) - score)
        return replace(found, metric=self.metric, score=score, interval=self.interval(theirs, rows), drop=drop)


def file_logits(ask: Callable[[dict[str, NDArray[np.int64]]], Logits], texts: Texts, batch: int = 32) -> Logits:
    """Logits [n, C] of all texts, asked in batches of like length."""
    parts, places = [], []
    for rows in sorted_batches(texts.lengths, batch):
        parts.append(ask(texts.batch(rows)))
        places.append(rows)
    found = np.empty_like(np.concatenate(parts))
    found[np.concatenate(places)] = np.concatenate(parts)
    return found


def _too_few(decision: str, agreement: float, of: str) -> str:
    return f"it gives the model's {decision} to {agreement:.1%} of {of}, where at least {MIN_AGREEMENT:.0%} must agree"
