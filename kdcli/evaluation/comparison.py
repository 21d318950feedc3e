"""Student, teachers and baselines on the same split, as one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdcli.data.task import Task
from kdcli.evaluation.chance import majority_answers
from kdcli.evaluation.metrics import Classes, score, scores

Role = Literal["student", "teacher", "without-teachers", "majority"]
Answer = tuple[str, Role, NDArray[np.float32], int]


class ModelScore(BaseModel):
    """One model's scores.

    Attributes:
        scores: metric → value, as fractions.
        parameters: of the whole model, or None where that makes no sense.
        retention: its score divided by the best teacher's, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    role: Role
    scores: dict[str, float]
    parameters: int | None = None
    retention: float | None = None


class Evaluation(BaseModel):
    """Scores of several models on one split; the content of ``evaluation.json`` and of ``kdcli evaluate --json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    task: str
    split: str
    rows: int
    source: str
    metric: str
    models: list[ModelScore]

    def of(self, role: Role) -> ModelScore | None:
        """The first model in that role."""
        return next((model for model in self.models if model.role == role), None)

    @property
    def student(self) -> ModelScore:
        """The model that the evaluation is about."""
        found = self.of("student")
        assert found is not None
        return found

    @property
    def best_teacher(self) -> ModelScore | None:
        """The teacher with the highest score."""
        teachers = [model for model in self.models if model.role == "teacher"]
        return max(teachers, key=lambda model: model.scores[self.metric], default=None)


def compare(
    *,
    task: str,
    split: str,
    source: str,
    metric: str,
    classes: int,
    labels: Classes,
    train_labels: Classes | None,
    answers: Sequence[Answer],
) -> Evaluation:
    """Score every model on the same labels.

    Args:
        task: its name.
        split: its name.
        source: where its rows are from.
        metric: the metric that decides.
        classes: number of classes C.
        labels: gold classes [n].
        train_labels: of the training split; decides which class the majority answer is. None leaves that row out.
        answers: name, role, logits [n, C] and parameter count of each model.
    """
    found = [(name, role, scores(logits, labels, classes), size) for name, role, logits, size in answers]
    teachers = [values[metric] for _, role, values, _ in found if role == "teacher"]
    best = max(teachers, default=None)
    models = [
        ModelScore(
            name=name,
            role=role,
            scores=values,
            parameters=size,
            retention=values[metric] / best if best is not None and best > 0 else None,
        )
        for name, role, values, size in found
    ]
    if train_labels is not None:
        guess = majority_answers(train_labels, labels)
        values: Mapping[str, float] = {key: score(key, guess, labels) for key in found[0][2]}
        models.append(ModelScore(name="majority class", role="majority", scores=dict(values)))
    return Evaluation(task=task, split=split, rows=len(labels), source=source, metric=metric, models=models)


def compare_on(task: Task, split: str, answers: Sequence[Answer]) -> Evaluation:
    """:func:`compare` on one labelled split of a task, by the task's own metric."""
    rows = task.splits[split]
    assert rows.labels is not None
    return compare(
        task=task.name,
        split=split,
        source=rows.source,
        metric=task.metric,
        classes=len(task.labels),
        labels=rows.labels,
        train_labels=task.train.labels,
        answers=answers,
    )
