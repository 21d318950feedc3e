"""A number for each sample: ratings, similarities, scores. Targets and predictions are numbers [n], outputs are [n, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError
from kdcli.tasks.class_names import refuse_regression
from kdcli.tasks.kind import Kind, Outputs, Serving
from kdcli.tasks.metric import Counts, Floats, Metric, Values
from kdcli.tasks.target_column import Column, count_rows

if TYPE_CHECKING:
    from torch import Tensor

    from kdcli.tasks.kind import Divergence

_NOTICED = 0.01  # of a number, or of 1: a smaller change is none
_LEAST_SPREAD = 0.1


class _Correlation(Metric):
    """Correlation of predicted with gold numbers, from −1 to 1; 0 where either side is always the same."""

    lowest = -1.0

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """Of where the numbers stand, as :meth:`_places` says, in each set."""
        weighted = weights.astype(np.float64)
        ours, gold = self._places(predictions, weighted), self._places(targets, weighted)  # [R, K]
        together = (weighted * ours * gold).sum(-1)
        spread = np.sqrt((weighted * ours**2).sum(-1) * (weighted * gold**2).sum(-1))
        return np.asarray(np.divide(together, spread, out=np.zeros_like(together), where=spread > 0))

    def _places(self, values: Values, weights: Floats) -> Floats:
        """Where each number stands, around 0 in each set [R, K]."""
        raise NotImplementedError


class Pearson(_Correlation):
    """Pearson's correlation."""

    name = "pearson"
    on_hub = ("pearsonr", {})

    def _places(self, values: Values, weights: Floats) -> Floats:
        scaled = _scaled(values)
        return np.asarray(scaled - (weights @ scaled / weights.sum(-1))[:, None])


class Spearman(_Correlation):
    """Spearman's correlation: Pearson's of the ranks, those of equal numbers being their mean."""

    name = "spearman"
    on_hub = ("spearmanr", {})

    def _places(self, values: Values, weights: Floats) -> Floats:
        order = np.argsort(values, kind="stable")
        begins = np.flatnonzero(np.r_[True, np.diff(values[order]) != 0])
        alike = np.add.reduceat(weights[:, order], begins, axis=1)  # [R, unlike numbers]
        ranks = alike.cumsum(-1) - alike / 2 - weights.sum(-1, keepdims=True) / 2
        found = np.empty_like(weights)
        found[:, order] = np.repeat(ranks, np.diff(np.r_[begins, len(order)]), axis=1)
        return found


class Explained(Metric):
    """Share of the variance that is explained (R²): 1 − Σ(y − ŷ)²/Σ(y − ȳ)²; 0 where all targets are the same."""

    name = "r2"
    on_hub = ("r_squared", {})
    lowest = -math.inf

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """As in the class."""
        weighted = weights.astype(np.float64)
        mean = (weighted @ targets / weighted.sum(-1))[:, None]
        left, whole = weighted @ (targets - predictions) ** 2, (weighted * (targets - mean) ** 2).sum(-1)
        return np.asarray(1.0 - np.divide(left, whole, out=np.ones_like(left), where=whole > 0))


class MeanSquaredError(Metric):
    """Mean squared error, in the square of the targets' unit."""

    name = "mse"
    on_hub = ("mse", {})

    def scores(self, predictions: Values, targets: Values, weights: Counts) -> Floats:
        """The mean under the weights."""
        return np.asarray(weights @ (targets - predictions) ** 2 / weights.sum(-1))


_METRICS: dict[str, Metric] = {metric.name: metric for metric in (Pearson(), Spearman(), Explained())}
_ERRORS: dict[str, Metric] = {metric.name: metric for metric in (MeanSquaredError(),)}


@dataclass(frozen=True)
class Regression(Kind):
    """A number for each sample.

    Attributes:
        target: what the number is called.
    """

    name = "regression"
    problem_type = "regression"
    decision = "number"
    guess_name = "mean"
    guessing = "always answering the mean"
    pipeline = "text-classification"
    serving = Serving(
        what="Numbers for texts",
        constants='NAMES = list(json.loads((HERE / "config.json").read_text(encoding="utf-8"))["id2label"].values())',
        result="dict[str, float]",
        told="What is said of each text, or of each text and its pair: name and number.",
        decide="        found += [dict(zip(NAMES, map(float, row), strict=True)) for row in outputs]",
        cells='*(f"{number:.4f}" for number in answer.values())',
    )

    target: str = field(default="value", compare=False)

    # Targets, as files have them

    @classmethod
    def recognises(cls, column: Column) -> bool:
        """Many different numbers, some of which are not whole."""
        try:
            refuse_regression(column)
        except RequestError:
            return True
        return False

    @classmethod
    def of_column(cls, column: Column) -> tuple[Self, list[str]]:
        """Numbers of which there are at least two."""
        kind = cls(column.name)
        values = kind.read(column)
        if not kind.is_trainable(values):
            raise RequestError(
                Problem(
                    column.source,
                    f"all {count_rows(len(column))} have the same number",
                    "numbers that differ",
                    column.cells[0],
                    "--label-column NAME, if another column holds them",
                )
            )
        about = f"{len(np.unique(values))} different numbers from {values.min():g} to {values.max():g}"
        return kind, [f"{column.source}: column {column.name!r} is learned as numbers (regression): {about}"]

    @classmethod
    def of_scored(cls, column: Column) -> Self:
        """Numbers, of which there may be a single one."""
        kind = cls(column.name)
        kind.read(column)
        return kind

    @classmethod
    def of_outputs(cls, names: Sequence[str]) -> Self:
        """One output."""
        return cls(names[0]) if names else cls()

    @classmethod
    def of_names(cls, names: Sequence[str]) -> Self:
        """One output."""
        return cls.of_outputs(names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the number is called."""
        return (self.target,)

    def order_of(self, where: str, outputs: Sequence[str], kind: str, teacher: str | None = None) -> list[int]:
        """The one output, whatever it is called."""
        self.refuse_other(where, kind)
        if len(outputs) != 1:
            raise RequestError(Problem(where, "has more than one output", "one number", f"{len(outputs)} outputs"))
        return [0]

    def kept_order(self, outputs: Sequence[str]) -> list[int] | None:
        """The one output."""
        return [0] if len(outputs) == 1 else None

    def read(self, column: Column) -> Floats:
        """The numbers; a comma may stand for the point."""
        found = np.empty(len(column))
        for row, cell in enumerate(column.cells):
            try:
                found[row] = float(cell.strip().replace(",", "."))
            except ValueError:
                found[row] = math.nan
            if not math.isfinite(found[row]):
                raise RequestError(
                    Problem(
                        column.place(row),
                        f"{cell!r} in column {column.name!r} is not a number",
                        "a number in every row",
                        remedy="--kind classification, if these are classes",
                    )
                )
        return found

    def covers(self, column: Column) -> bool:
        """Whether every value is a number."""
        try:
            self.read(column)
        except RequestError:
            return False
        return True

    def doubtful(self, column: Column) -> list[str]:
        """Nothing: a word for a missing value is no number."""
        return []

    # Targets, as numbers

    def known(self, targets: Values) -> NDArray[np.bool_]:
        """Those that are not NaN."""
        return ~np.isnan(targets)

    def none(self, count: int) -> Floats:
        """NaN."""
        return np.full(count, math.nan)

    def hold_out(self, targets: Values, fraction: float, generator: np.random.Generator) -> NDArray[np.int64]:
        """Of every so many rows in the order of their numbers one, drawn at random, so that all sizes of numbers are there."""
        order = generator.permutation(len(targets))
        order = order[np.argsort(targets[order], kind="stable")]
        parts = np.array_split(order, round(fraction * len(targets))) if round(fraction * len(targets)) else []
        return np.sort(np.array([generator.choice(part) for part in parts], dtype=np.int64))

    def lost(self, before: Values, after: Values) -> str | None:
        """Nothing: there are no classes that could be missing."""
        return None

    def describe(self) -> str:
        """The number's name."""
        return f"a number ({self.target})"

    # Losses

    def labelled(self, targets: Tensor) -> Tensor:
        """Those that are not NaN."""
        return ~targets.isnan()

    def hard_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error."""
        wanted = targets.float()
        return (outputs.float().squeeze(-1) - wanted.nan_to_num()).square() * self.labelled(wanted)

    def softened(self, outputs: Tensor, temperature: float) -> Tensor:
        """The number itself; a temperature means nothing."""
        return outputs.float()

    def soft_losses(self, student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
        """Squared difference."""
        return (student - teacher).square().mean(-1)

    def losses_of_mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error of the mean."""
        return self.hard_losses(outputs.float().mean(0), targets)

    # Scores

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Correlations, and the share of variance explained."""
        return dict(_METRICS)

    @property
    def errors(self) -> dict[str, Metric]:
        """The mean squared error."""
        return dict(_ERRORS)

    def lack(self, metric: str) -> Problem | None:
        """What is an error decides nothing."""
        if metric in _ERRORS:
            return Problem(f"--metric {metric}", "is told and decides nothing: less of it is better", "r2, of which more is")
        if metric not in _METRICS:
            return Problem(f"--metric {metric}", "there is no such metric for numbers", "one of " + ", ".join(_METRICS))
        return None

    # Predictions

    def predictions(self, outputs: Outputs) -> Floats:
        """The number itself."""
        return np.asarray(outputs[:, 0], dtype=np.float64)

    def ensemble(self, outputs: Sequence[Outputs]) -> Outputs:
        """The mean."""
        return np.asarray(np.mean(outputs, axis=0, dtype=np.float64), dtype=np.float32)

    def guess(self, known: Values, count: int) -> Floats:
        """The mean."""
        return np.full(count, float(np.mean(known)))

    # Files that shall say what a model says

    def changed(self, ours: Outputs, theirs: Outputs) -> NDArray[np.bool_]:
        """Numbers that differ by more than a hundredth of themselves, or of 1."""
        return np.asarray(np.abs(ours - theirs)[:, 0] > _NOTICED * np.maximum(1.0, np.abs(ours[:, 0])))

    def collapsed(self, ours: Outputs, theirs: Outputs) -> str | None:
        """Whether hardly anything of the spread is left."""
        spread, left = float(ours.std()), float(theirs.std())
        if len(ours) > 1 and left < _LEAST_SPREAD * spread:
            return f"its numbers spread by {left:.3g}, where the model's spread by {spread:.3g}"
        return None

    # What a person reads

    def limits(self) -> Iterator[str]:
        """That it always answers."""
        yield "It gives every text a number, also outside of the range of those that it was trained on."

    def outputs_told(self, plain: Callable[[str], str]) -> str:
        """The number."""
        return f"The output is a number, {plain(self.target)}, in the unit of the data."

    def written(self, value: Any) -> str:
        """Six digits."""
        return f"{float(value):.6g}"


def _scaled(values: Values) -> Floats:
    """Numbers around 0 with a spread of 1 or less, which correlations do not see and sums of squares do not overflow by."""
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    largest = float(np.abs(centred).max(initial=0.0))
    return centred / largest if largest > 0 else centred
