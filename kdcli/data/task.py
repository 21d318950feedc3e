"""A task: labelled texts in splits, the names of the classes, and the metric that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdcli.data.splits import AUGMENTED, DEV, TRAIN, UNLABELLED
from kdcli.errors import RequestError
from kdcli.tasks.kind import Kind

if TYPE_CHECKING:
    from kdcli.data.columns import Choice


@dataclass(frozen=True)
class Split:
    """The samples of one split.

    Attributes:
        texts: the first (or only) text of each sample.
        pairs: the second text of each sample, for tasks over pairs.
        targets: what the kind of task makes of the labels [n] (class indices, numbers), or None where it has none.
        source: where the samples are from, for messages.
        fingerprint: sha256 of that source, first 16 hex digits.
        ids: columns that say which row is which (``id``, ``index``, …), by name.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    targets: NDArray[np.int64] | None
    source: str
    fingerprint: str
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def samples(self) -> list[str] | list[tuple[str, str]]:
        """Each sample as a tokenizer takes it: a text, or a pair of texts."""
        return list(self.texts) if self.pairs is None else list(zip(self.texts, self.pairs, strict=True))

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> Split:
        """The samples at ``rows``, in that order."""
        return replace(
            self,
            texts=[self.texts[row] for row in rows],
            pairs=None if self.pairs is None else [self.pairs[row] for row in rows],
            targets=None if self.targets is None else self.targets[np.asarray(rows, dtype=np.int64)],
            ids={name: [cells[row] for row in rows] for name, cells in self.ids.items()},
        )


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes:
        name: stands in folders and tables.
        kind: of task, with its classes.
        metric: the figure that decides (one of the kind's metrics).
        splits: ``train``, ``dev`` and perhaps ``test``, ``unlabelled`` and further evaluation splits.
        notes: what the user should know about how the splits came to be.
        columns: what the columns of the files stand for.
        unscored: splits that are there and cannot be scored → why.
    """

    name: str
    kind: Kind
    metric: str
    splits: Mapping[str, Split]
    notes: tuple[str, ...] = field(default=())
    columns: Choice | None = None
    unscored: Mapping[str, RequestError] = field(default_factory=dict)

    def with_all_of(self, known: Kind | None) -> Task:
        """The task with all classes of a model, where its own are some of them; else the task as it is."""
        kind = self.kind if known is None else self.kind.widened(known)
        if kind == self.kind:
            return self
        splits = {
            name: split if split.targets is None else replace(split, targets=self.kind.translated(split.targets, kind))
            for name, split in self.splits.items()
        }
        return replace(self, kind=kind, splits=splits)

    @property
    def train(self) -> Split:
        """The labelled samples that are trained on."""
        return self.splits[TRAIN]

    @property
    def unlabelled(self) -> int:
        """How many samples without a label the student is taught on besides."""
        return sum(map(len, self._without_labels))

    @property
    def training_rows(self) -> Split:
        """What the student is taught on: the training samples, then those without labels."""
        if not self.unlabelled:
            return self.train
        more = self._without_labels
        assert self.train.targets is not None
        return replace(
            self.train,
            texts=[*self.train.texts, *(text for split in more for text in split.texts)],
            pairs=None
            if self.train.pairs is None
            else [*self.train.pairs, *(text for split in more for text in split.pairs or ())],
            ids={},
            targets=np.concatenate([self.train.targets, self.kind.none(self.unlabelled)]),
        )

    @property
    def _without_labels(self) -> list[Split]:
        return [self.splits[name] for name in (UNLABELLED, AUGMENTED) if name in self.splits]

    @property
    def dev(self) -> Split:
        """The samples that checkpoints are chosen on; never the test split."""
        return self.splits[DEV]

    @property
    def has_pairs(self) -> bool:
        """Whether a sample is two texts."""
        return next(iter(self.splits.values())).pairs is not None
