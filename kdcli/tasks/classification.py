"""One of C classes for each sample. Targets and predictions are class indices [n], outputs are logits [n, C]."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError
from kdcli.tasks.calibration import Calibration, calibrate
from kdcli.tasks.class_matching import match_labels, order_by_name
from kdcli.tasks.class_metrics import CLASS_METRICS, Classes
from kdcli.tasks.class_names import (
    check_trainable,
    classes_of,
    doubtful_labels,
    no_class,
    refuse_regression,
    same_label,
    unknown_label,
)
from kdcli.tasks.class_scores import ClassScore, class_scores, confusion, missing_classes
from kdcli.tasks.kind import Kind, Outputs, Serving
from kdcli.tasks.metric import Metric, Values
from kdcli.tasks.target_column import Column, count_rows

if TYPE_CHECKING:
    from torch import Tensor

    from kdcli.tasks.kind import Divergence

NO_CLASS = -1
_FEWEST_VALUES = 3
_MOST_NAMED = 5
TIE = 1e-5
_ROWS_OF_A_CLASS, _KEPT_OF_A_CLASS = 5, 0.5
_MORE_THAN_ONE_ROW = 2


@dataclass(frozen=True)
class Classification(Kind):
    """One of C classes for each sample.

    Attributes:
        names: of the classes; the position is the class index everywhere.
        raw_names: what the data files write for each class.
        closed: whether further files must write a class exactly so, and not otherwise (``1.0`` for ``1``).
    """

    name = "classification"
    problem_type = "single_label_classification"
    fewest_outputs = 2
    has_probabilities = True
    softens = True
    decision = "class"
    guess_name = "majority class"
    guessing = "always answering the most frequent class"

    names: tuple[str, ...]
    raw_names: tuple[str, ...]
    closed: bool = field(default=False, compare=False)

    # Targets, as files have them

    @classmethod
    def recognises(cls, column: Column) -> bool:
        """Anything may be a class."""
        return True

    @classmethod
    def of_column(cls, column: Column) -> tuple[Self, list[str]]:
        """The classes in alphabetical order, or in that of their numbers."""
        notes = check_trainable(column)
        return cls.of_names(classes_of(column)), notes

    @classmethod
    def of_scored(cls, column: Column) -> Self:
        """The same classes, of which there may be a single one."""
        refuse_regression(column)
        return cls.of_names(classes_of(column))

    @classmethod
    def of_outputs(cls, names: Sequence[str]) -> Self:
        """Classes of these names; where the names say nothing (``LABEL_0``), numbers from 0."""
        nameless = all(re.fullmatch(r"LABEL_\d+", name) for name in names)
        return cls.of_names(list(map(str, range(len(names)))) if nameless else names)

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Self:
        """Classes of these names, which files write so."""
        return cls(tuple(names), tuple(names))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.names

    @property
    def class_names(self) -> tuple[str, ...]:
        """All of them."""
        return self.names

    def order_of(self, where: str, outputs: Sequence[str], kind: str, teacher: str | None = None) -> list[int]:
        """By the names of the classes."""
        self.refuse_other(where, kind)
        return match_labels(where, outputs, self.names, self.raw_names, teacher)

    def kept_order(self, outputs: Sequence[str]) -> list[int] | None:
        """By the same names."""
        return order_by_name(outputs, self.names)

    def find(self, value: str) -> int | None:
        """The class that a file means by ``value``, or None."""
        exact = self._places.get(value)
        return exact if exact is not None or self.closed else self._alike.get(same_label(value))

    def read(self, column: Column) -> Classes:
        """Class indices of what a file writes."""

        def refused(row: int) -> RequestError:
            refuse_regression(column)
            return unknown_label(column, row, self.raw_names)

        return self._read(column, refused)

    def read_predictions(self, column: Column) -> Classes:
        """Class indices; numbers that are no class may be indices in any order, or probabilities."""
        return self._read(column, lambda row: no_class(column, row, self.names, self.raw_names))

    def _read(self, column: Column, refused: Callable[[int], RequestError]) -> Classes:
        found = {value: self.find(value) for value in set(column.cells)}
        places = np.empty(len(column), dtype=np.int64)
        for row, value in enumerate(column.cells):
            place = found[value]
            if place is None:
                raise refused(row)
            places[row] = place
        return places

    def covers(self, column: Column) -> bool:
        """Whether every value is a class."""
        return all(self.find(value) is not None for value in set(column.cells))

    def remarks(self, column: Column) -> list[str]:
        """A sentence per class that a further file writes otherwise."""
        counts = Counter(value for value in column.cells if value not in self._places)
        found = [(value, count, self.find(value)) for value, count in counts.items()]
        alike = [
            f"{value!r} is taken as class {self.raw_names[place]!r} ({count_rows(count)})"
            for value, count, place in found
            if place is not None
        ]
        more = len(alike) - _MOST_NAMED
        return alike[:_MOST_NAMED] + ([f"{more} more classes are written otherwise than in the first file"] if more > 0 else [])

    def doubtful(self, column: Column) -> list[str]:
        """Classes that may as well be a missing value."""
        return doubtful_labels(column)

    @cached_property
    def _places(self) -> dict[str, int]:
        names = {name: row for row, name in enumerate(self.names)}
        return names | {raw: row for row, raw in enumerate(self.raw_names)}

    @cached_property
    def _alike(self) -> dict[object, int]:
        keys = Counter(same_label(raw) for raw in self.raw_names)
        return {same_label(raw): row for row, raw in enumerate(self.raw_names) if keys[same_label(raw)] == 1}

    # Targets, as numbers

    def known(self, targets: Values) -> NDArray[np.bool_]:
        """Those whose class is not −1."""
        return np.asarray(targets != NO_CLASS)

    def none(self, count: int) -> Classes:
        """−1."""
        return np.full(count, NO_CLASS)

    def hold_out(self, targets: Values, fraction: float, generator: np.random.Generator) -> NDArray[np.int64]:
        """The same fraction of every class."""
        held = []
        for place in np.unique(targets):
            rows = generator.permutation(np.flatnonzero(targets == place))
            held.append(rows[: round(fraction * len(rows))])
        return np.sort(np.concatenate(held))

    def folds(self, targets: Values, count: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The classes in proportion."""
        from sklearn.model_selection import StratifiedKFold  # here, because it takes longer to import than a dry run to plan

        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer samples than folds is in some folds alone
            return list(splitter.split(np.zeros(len(targets)), targets))

    def lost(self, before: Values, after: Values) -> str | None:
        """The classes that are in the one and not in the other."""
        gone = sorted(set(before.tolist()) - set(after.tolist()))
        if not gone:
            return None
        shown = ", ".join(repr(self.names[place]) for place in gone[:_MOST_NAMED])
        return f"{len(gone)} class{'' if len(gone) == 1 else 'es'} ({shown}{', …' if len(gone) > _MOST_NAMED else ''})"

    def widened(self, other: Kind) -> Self:
        """With all classes of a model, where its own are some of them."""
        names = other.names if isinstance(other, Classification) else ()
        if not set(self.names) < set(names):
            return self
        written = dict(zip(self.names, self.raw_names, strict=True))
        return replace(self, names=tuple(names), raw_names=tuple(written.get(name, name) for name in names))

    def translated(self, targets: Values, into: Kind) -> Values:
        """Class indices by the other order."""
        assert isinstance(into, Classification)
        places = np.array([into.names.index(name) for name in self.names], dtype=np.int64)
        return np.where(self.known(targets), places[targets], NO_CLASS)

    def describe(self) -> str:
        """How many classes there are."""
        return f"{len(self.names)} classes"

    # Losses

    def labelled(self, targets: Tensor) -> Tensor:
        """Those whose class is not −1."""
        return targets != NO_CLASS

    def hard_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats."""
        from torch.nn import functional

        return functional.cross_entropy(outputs.float(), targets, reduction="none", ignore_index=NO_CLASS)

    def hard_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of the cross-entropies in nats."""
        from torch.nn import functional

        return functional.cross_entropy(outputs.float(), targets, reduction="sum", ignore_index=NO_CLASS)

    def softened(self, outputs: Tensor, temperature: float) -> Tensor:
        """Log-probabilities of the logits divided by the temperature."""
        return self.log_probabilities(outputs.float() / temperature)

    def soft_losses(self, student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
        """The divergence of the class distributions, in nats."""
        return divergence(student, teacher)

    def losses_of_mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the mean distribution, in nats."""
        from torch.nn import functional

        mean = self.log_probabilities(outputs).logsumexp(0) - math.log(len(outputs))
        return functional.nll_loss(mean, targets, reduction="none", ignore_index=NO_CLASS)

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """Of the classes."""
        return outputs.float().log_softmax(-1)

    # Scores

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Those that are defined for classes of these names.

        >>> list(Classification(("1", "2", "4"), ("1", "2", "4")).metrics)
        ['accuracy', 'macro-f1', 'weighted-f1', 'matthews', 'spearman']
        """
        return {name: metric for name, metric in CLASS_METRICS.items() if self.lack(name) is None}

    def lack(self, metric: str) -> Problem | None:
        """``f1`` needs two classes; ``spearman`` three or more that are rising numbers, ``pearson`` evenly spaced ones."""
        where, count = f"--metric {metric}", len(self.names)
        if metric not in CLASS_METRICS:
            return Problem(where, "there is no such metric", "one of " + ", ".join(CLASS_METRICS))
        if metric == "f1" and count != 2:
            return Problem(where, f"needs two classes, the task has {count}", "macro-f1 or weighted-f1")
        if metric not in ("pearson", "spearman"):
            return None
        if count == 2:
            return Problem(where, "needs three classes or more, the task has 2", "matthews, which is the same of two classes")
        steps = np.diff(_values(self.names))
        named = ", ".join(self.names[:10])
        if len(steps) < _FEWEST_VALUES - 1 or not (steps > 0).all():
            return Problem(where, "needs classes that are rising numbers", "classes such as 1, 2, 3; or macro-f1", named)
        if metric == "pearson" and not np.allclose(steps, steps[0], rtol=1e-6, atol=0.0):
            return Problem(where, "needs classes that are evenly spaced numbers", "classes such as 1, 2, 3; or spearman", named)
        return None

    # Predictions

    def predictions(self, outputs: Outputs) -> Classes:
        """The class with the largest logit."""
        return np.asarray(outputs.argmax(-1), dtype=np.int64)

    def ensemble(self, outputs: Sequence[Outputs]) -> Outputs:
        """The logarithm of the mean of the members' probabilities."""
        from scipy.special import log_softmax, logsumexp

        with np.errstate(invalid="ignore"):  # of a member whose outputs are not finite nothing is made: it is said elsewhere
            logs = np.stack([log_softmax(np.asarray(each, dtype=np.float64), axis=-1) for each in outputs])
            return np.asarray(logsumexp(logs, axis=0) - np.log(len(outputs)), dtype=np.float32)

    def guess(self, known: Values, count: int) -> Classes:
        """The most frequent class."""
        values, counts = np.unique(known, return_counts=True)
        return np.full(count, values[counts.argmax()], dtype=np.int64)

    # Files that shall say what a model says

    def changed(self, ours: Outputs, theirs: Outputs) -> NDArray[np.bool_]:
        """Those that get another class."""
        return np.asarray(ours.argmax(-1) != theirs.argmax(-1))

    def undecided(self, ours: Outputs) -> NDArray[np.bool_]:
        """Those whose two best logits are within :data:`TIE` of their size."""
        if ours.shape[1] < 2 or not np.isfinite(ours).all():
            return np.zeros(len(ours), dtype=np.bool_)
        best = np.sort(ours.astype(np.float64), axis=1)[:, -2:]
        return np.asarray(best[:, 1] - best[:, 0] <= TIE * np.maximum(1.0, np.abs(ours).max(1)))

    def probability_difference(self, ours: Outputs, theirs: Outputs) -> float:
        """Of a class."""
        return float(np.abs(_softmax(ours) - _softmax(theirs)).max())

    def collapsed(self, ours: Outputs, theirs: Outputs) -> str | None:
        """Whether one class is given to all texts, or to most of another one's."""
        return collapsed(ours.argmax(-1), theirs.argmax(-1))

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of the classes."""
        return outputs.softmax(-1)

    serving = Serving(
        what="Labels for texts",
        constants=(
            'LABELS = json.loads((HERE / "config.json").read_text(encoding="utf-8")).get('
            '"id2label", {"0": "LABEL_0", "1": "LABEL_1"})'
        ),
        result="tuple[str, float]",
        told="The likeliest label, and its probability, of each text, or of each text and its pair.",
        decide=(
            "        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))\n"
            "        found += [(LABELS[str(row.argmax())], float(row.max() / row.sum())) for row in powers]"
        ),
        cells='answer[0].translate(ON_ONE_LINE), f"{answer[1]:.4f}"',
    )

    # What a person reads

    pipeline = "text-classification"

    def limits(self) -> Iterator[str]:
        """That it always answers."""
        yield f"It answers every text with one of its {len(self.names)} classes, also where none fits."

    def outputs_told(self, plain: Callable[[str], str]) -> str:
        """The classes."""
        return f"Classes, in output order: {', '.join(map(plain, self.names))}."

    # Tables

    def written(self, value: Any) -> str:
        """The class's name."""
        return self.names[int(value)]

    def groups(self, targets: Values) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The samples of each class."""
        for index, name in enumerate(self.names):
            yield name, np.flatnonzero(targets == index)

    def missing(self, targets: Values) -> list[str]:
        """The classes that none of the targets is."""
        return missing_classes(targets, self.names)

    def class_scores(self, predictions: Values, targets: Values) -> list[ClassScore]:
        """Precision, recall and F1 of each class."""
        return class_scores(predictions, targets, self.names)

    def confusion(self, predictions: Values, targets: Values) -> list[list[int]]:
        """Counts by gold and by predicted class."""
        return confusion(predictions, targets, len(self.names))

    def calibration(self, outputs: Outputs, targets: Values) -> Calibration:
        """Of the probability of the predicted class."""
        return calibrate(outputs, targets)


def _softmax(logits: Outputs) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return found


def collapsed(ours: Classes, theirs: Classes) -> str | None:
    """Whether a file has lost classes that the model predicts: it gives one class to all, or to most of another one's texts."""
    classes, counts = np.unique(ours, return_counts=True)
    if len(np.unique(theirs)) == 1 and len(ours) - counts.max() >= _MORE_THAN_ONE_ROW:
        return f"it gives the same class to all texts, where the model gives {len(classes)}"
    for place, count in zip(classes, counts, strict=True):
        kept = int(np.sum(theirs[ours == place] == place))
        if count >= _ROWS_OF_A_CLASS and kept < _KEPT_OF_A_CLASS * count:
            return f"it keeps {kept} of the {count} texts that the model gives to one class"
    return None


def _values(classes: Sequence[str]) -> NDArray[np.float64]:
    """The classes' names as numbers; none at all where one of them is not a finite number."""
    try:
        values = np.array([float(name) for name in classes])
    except ValueError:
        return np.empty(0)
    return values if np.isfinite(values).all() else np.empty(0)


CLASSES = Classification((), ())
"""Some classes: losses do not ask for their names."""
