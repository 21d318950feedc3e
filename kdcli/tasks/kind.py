"""What a kind of task must answer; everybody else asks the kind, and never which kind it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from kdcli.errors import Problem, RequestError, RunFailedError
from kdcli.tasks.calibration import Calibration
from kdcli.tasks.class_scores import ClassScore
from kdcli.tasks.metric import Metric, Values
from kdcli.tasks.target_column import Column

if TYPE_CHECKING:
    from torch import Tensor

    Divergence = Callable[[Tensor, Tensor], Tensor]

Outputs = NDArray[np.float32]  # what a model says of each sample, before anything is decided from it


@dataclass(frozen=True)
class Serving:
    """How ``predict.py`` makes predictions of a row of outputs, as Python source.

    Attributes:
        what: what it gives for texts, as the script's first line begins.
        constants: lines that read what it needs of ``config.json``.
        result: the type of what is given for one text.
        told: what that is, in a sentence.
        decide: lines of the body of a loop over the batches, which extend ``found`` from ``outputs`` [B, …].
        cells: an expression of the cells that are printed before a text, from ``answer``.
    """

    what: str
    constants: str
    result: str
    told: str
    decide: str
    cells: str


class Kind(ABC):
    """A kind of task, with what is known of one task: its classes, its numbers, ….

    Attributes:
        name: as ``--kind`` and plans have it.
        problem_type: what transformers calls a head for it.
        fewest_outputs: that a model of it has.
        has_probabilities: outputs are a distribution, whose spread says how sure a model is.
        softens: a temperature changes what outputs say.
        serving: how ``predict.py`` makes predictions.
        pipeline: what the Hub and transformers call what a model of it does.
        decision: what is decided from the outputs of a sample.
        guess_name: what :meth:`guess` is called in tables.
        guessing: the same in a sentence.
    """

    name: ClassVar[str]
    problem_type: ClassVar[str]
    fewest_outputs: ClassVar[int] = 1
    has_probabilities: ClassVar[bool] = False
    softens: ClassVar[bool] = False
    serving: ClassVar[Serving]
    pipeline: ClassVar[str]
    decision: ClassVar[str]
    guess_name: ClassVar[str]
    guessing: ClassVar[str]

    # Targets, as files have them

    @classmethod
    @abstractmethod
    def recognises(cls, column: Column) -> bool:
        """Whether the training file's targets look like this kind."""

    @classmethod
    @abstractmethod
    def of_column(cls, column: Column) -> tuple[Self, list[str]]:
        """The task that the training file's targets make up, and notes on what is odd about them.

        Raises:
            RequestError: nothing can be trained on them.
        """

    @classmethod
    @abstractmethod
    def of_scored(cls, column: Column) -> Self:
        """As :meth:`of_column`, of targets that models are scored on and not trained: a single one is enough.

        Raises:
            RequestError: nothing can be scored on them.
        """

    @classmethod
    @abstractmethod
    def of_outputs(cls, names: Sequence[str]) -> Self:
        """The task of a model whose outputs are called so."""

    @classmethod
    @abstractmethod
    def of_names(cls, names: Sequence[str]) -> Self:
        """The task whose plan names its outputs so."""

    @property
    @abstractmethod
    def output_names(self) -> tuple[str, ...]:
        """What the outputs of a model of this task are called, in order."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, where there are any."""
        return ()

    @abstractmethod
    def order_of(self, where: str, outputs: Sequence[str], kind: str, teacher: str | None = None) -> list[int]:
        """For each output of this task, the index of a model's output that stands for it.

        Args:
            where: the flag or the model, for messages.
            outputs: what the model's outputs are called, in order.
            kind: of the model's own task.
            teacher: the name under which a recipe knows the model, for the way out.

        Raises:
            RequestError: the model is for another task.
        """

    def refuse_other(self, where: str, kind: str) -> None:
        """Refuse a model that is for another kind of task.

        Raises:
            RequestError: it is.
        """
        if kind != self.name:
            raise RequestError(Problem(where, "is for another kind of task", self.name, kind, f"--kind {kind}"))

    def kept_order(self, outputs: Sequence[str]) -> list[int] | None:
        """The same, where the names alone decide whether a model's head is for this task; None where it is not."""
        return None

    @abstractmethod
    def read(self, column: Column) -> Values:
        """The targets [n, …] that a file writes.

        Raises:
            RequestError: a row is none of this task.
        """

    def read_predictions(self, column: Column) -> Values:
        """Predictions [n, …] that were made elsewhere, as a file writes them.

        Raises:
            RequestError: a row is none of this task.
        """
        return self.read(column)

    @abstractmethod
    def covers(self, column: Column) -> bool:
        """Whether every row of a file is a target of this task."""

    def remarks(self, column: Column) -> list[str]:
        """What a user should know about how a file writes targets of this task."""
        return []

    @abstractmethod
    def doubtful(self, column: Column) -> list[str]:
        """What a user should know about targets that may stand for none."""

    # Targets, as numbers

    @abstractmethod
    def known(self, targets: Values) -> NDArray[np.bool_]:
        """Which samples have a target [n]; those of unlabelled text have none."""

    @abstractmethod
    def none(self, count: int) -> Values:
        """The targets of samples that have none [count, …]."""

    @abstractmethod
    def hold_out(self, targets: Values, fraction: float, generator: np.random.Generator) -> NDArray[np.int64]:
        """Numbers of the rows to hold out, in rising order, so that they are like the others."""

    def folds(self, targets: Values, count: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Row numbers without, and of, each of so many parts that are like each other."""
        from sklearn.model_selection import KFold  # here, because it takes longer to import than a dry run to plan

        return list(KFold(count, shuffle=True, random_state=seed).split(np.zeros(len(targets))))

    @abstractmethod
    def lost(self, before: Values, after: Values) -> str | None:
        """What of the task is in ``before`` and not in ``after``, for a note; None where nothing is."""

    def is_trainable(self, targets: Values) -> bool:
        """Whether there is anything to tell apart."""
        return len(np.unique(targets, axis=0)) > 1

    def widened(self, other: Kind) -> Self:
        """The same task with all that a model's task has, where its own is a part of that."""
        return self

    def translated(self, targets: Values, into: Kind) -> Values:
        """Targets as the wider task ``into`` has them."""
        return targets

    @abstractmethod
    def describe(self) -> str:
        """What there is to tell apart, in few words."""

    # Losses

    @abstractmethod
    def labelled(self, targets: Tensor) -> Tensor:
        """Which samples have a target [B]; as :meth:`known`, of a batch."""

    @abstractmethod
    def hard_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How far outputs are from targets, sample by sample; 0 where there is no target. Shapes: [B, …] → [B], fp32."""

    def hard_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of :meth:`hard_losses`, a scalar."""
        return self.hard_losses(outputs, targets).sum()

    @abstractmethod
    def softened(self, outputs: Tensor, temperature: float) -> Tensor:
        """Outputs [B, …] as they are compared with another model's, fp32; divided by it, where the kind :attr:`softens`."""

    @abstractmethod
    def soft_losses(self, student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
        """How far a student is from a teacher, sample by sample.

        Args:
            student: its outputs, :meth:`softened` [B, …].
            teacher: likewise.
            divergence: of log-probabilities [B, C], where there are probabilities.

        Returns:
            [B], fp32.
        """

    @abstractmethod
    def losses_of_mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As :meth:`hard_losses`, of the mean of several teachers. Shapes: outputs [N, B, …], targets [B, …] → [B]."""

    def log_probabilities(self, outputs: Tensor) -> Tensor:
        """What outputs say as log-probabilities [..., C], fp32; only where the kind :attr:`has_probabilities`."""
        raise NotImplementedError

    # Scores

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Metric]:
        """By name those that are defined for this task, the usual one first."""

    @property
    def errors(self) -> dict[str, Metric]:
        """By name what is told beside the metrics, and the less the better; nothing is decided by it."""
        return {}

    @abstractmethod
    def lack(self, metric: str) -> Problem | None:
        """Why a metric is not defined for this task."""

    def metric(self, name: str) -> Metric:
        """One of its metrics.

        Raises:
            RequestError: it is unknown, or not defined for this task; with those that are.
        """
        problem = self.lack(name)
        if problem is not None:
            raise RequestError(problem)
        return self.metrics[name]

    def scores(self, outputs: Outputs, targets: Values) -> dict[str, float]:
        """Every metric and every error. Shapes: outputs, targets [n, …].

        Raises:
            RunFailedError: outputs are not finite, so that there is no score.
        """
        return self.scores_of(self.finite_predictions(outputs), targets)

    def scores_of(self, predictions: Values, targets: Values) -> dict[str, float]:
        """The same, of predictions [n, …]."""
        return {name: metric.score(predictions, targets) for name, metric in (self.metrics | self.errors).items()}

    # Predictions

    @abstractmethod
    def predictions(self, outputs: Outputs) -> Values:
        """What is decided from a model's outputs [n, …]."""

    def finite_predictions(self, outputs: Outputs) -> Values:
        """The same.

        Raises:
            RunFailedError: some outputs are not finite: the largest of NaN is always the first, which no model has said.
        """
        broken = rows_not_finite(outputs)
        if len(broken):
            raise RunFailedError(
                f"outputs are not finite for {len(broken)} of {len(outputs)} samples, so that they have no score"
            )
        return self.predictions(outputs)

    @abstractmethod
    def ensemble(self, outputs: Sequence[Outputs]) -> Outputs:
        """The outputs of several models as those of one [n, …]."""

    @abstractmethod
    def guess(self, known: Values, count: int) -> Values:
        """Predictions without a model, from the targets of other samples: always the same one [count, …]."""

    # Files that shall say what a model says

    @abstractmethod
    def changed(self, ours: Outputs, theirs: Outputs) -> NDArray[np.bool_]:
        """Of which samples other outputs decide otherwise [n]."""

    def undecided(self, ours: Outputs) -> NDArray[np.bool_]:
        """Of which samples a model itself is as good as undecided [n]."""
        return np.zeros(len(ours), dtype=np.bool_)

    def probability_difference(self, ours: Outputs, theirs: Outputs) -> float:
        """The largest difference of a probability; 0 where there are none."""
        return 0.0

    def collapsed(self, ours: Outputs, theirs: Outputs) -> str | None:
        """What has become of what the model tells apart, if other outputs do not; else None."""
        return None

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs [..., C] as probabilities; only where the kind :attr:`has_probabilities`."""
        raise NotImplementedError

    # What a person reads

    @abstractmethod
    def limits(self) -> Iterator[str]:
        """What a model of it cannot do, in sentences, for its card."""

    @abstractmethod
    def outputs_told(self, plain: Callable[[str], str]) -> str:
        """What the outputs are, in a sentence, for the card; ``plain`` makes a name harmless."""

    # Tables

    @abstractmethod
    def written(self, value: Any) -> str:
        """A target or a prediction as it stands in tables."""

    def groups(self, targets: Values) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Samples that have a target in common, in which a student may lose more than elsewhere: name and row numbers."""
        return iter(())

    def missing(self, targets: Values) -> list[str]:
        """Names of what the task has and none of these targets is."""
        return []

    def class_scores(self, predictions: Values, targets: Values) -> list[ClassScore]:
        """Class by class, in the task's order; none where there are no classes."""
        return []

    def confusion(self, predictions: Values, targets: Values) -> list[list[int]]:
        """Counts: a row for each gold class, in it a column for each predicted one; empty where there are no classes."""
        return []

    def calibration(self, outputs: Outputs, targets: Values) -> Calibration | None:
        """How far confidence is from accuracy; None where nothing is a probability."""
        return None


def rows_not_finite(outputs: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of the rows of ``outputs`` [n, …] that hold an infinite value or NaN."""
    return np.flatnonzero(~np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim))))
