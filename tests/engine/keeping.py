"""Teachers whose answers are kept: phases over texts of unlike length, some of which are there more than once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kdcli.data.alignment import align
from kdcli.data.batching import Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.engine.events import Logged
from kdcli.engine.output_store import OutputStore
from kdcli.engine.stages import Phase
from kdcli.engine.teacher_outputs import Teaching, stores_for, wants_of
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.models.teachers import Ensemble, Teacher
from kdcli.models.weight_loading import load_tokenizer
from tests.engine import phases
from tests.engine.phases import BATCH_SIZE, LABELS, WIDTHS, Material, Part, Terms, Told, trainer, weights

ROWS = 24
EPOCH = ROWS // BATCH_SIZE
ENDLESS = 2**40


@cache
def samples(material: Material, first: int = 0) -> Samples:
    """Texts of 3 to 13 tokens; six of them are there twice or more."""
    texts = phases.split(material, "train", phases.TRAIN_ROWS).texts[first : first + ROWS]
    generator = np.random.default_rng(first)
    cut = [" ".join(text.split()[: int(generator.integers(1, 10))]) for text in texts]
    for row in range(6):
        cut[ROWS - 1 - row] = cut[row // 2]
    split = Split(cut, None, generator.integers(0, len(LABELS), ROWS), "", "")
    folders = {STUDENT: material.bert, "bert": material.bert, "roberta": material.roberta}
    views = {name: tokenise(split, load_tokenizer(folder), 24) for name, folder in folders.items()}
    views["bert"] = views[STUDENT]
    return Samples(split.targets, views, {name: align(views[STUDENT], views[name]) for name in WIDTHS}, STUDENT)


class Alone(Teacher):
    """A teacher that reads one text at a time, so that what it says is the same to the last bit in any company.

    Where there is padding it says something foolish. What it has said of a text it knows by heart.
    """

    asked: list[list[tuple[int, ...]]]
    said: ClassVar[dict[tuple[object, ...], Output]] = {}

    @classmethod
    def like(cls, other: Teacher) -> Alone:
        """The same teacher under the same weights."""
        alone = cls(other.name, other.model, other.order.tolist(), other.head)  # type: ignore[operator]
        alone.asked = []
        return alone

    @torch.no_grad()
    def forward(self, inputs: dict[str, Tensor], wanted: Wanted | None = None) -> Output:
        """One after the other."""
        lengths = inputs["attention_mask"].sum(-1).tolist()
        self.asked.append([tuple(ids[:length]) for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)])
        alone = []
        for row, text in enumerate(self.asked[-1]):
            key = (self.model, self.head, text, wanted)
            if key not in self.said:
                own = {name: value[row : row + 1, : len(text)] for name, value in inputs.items()}
                self.said[key] = super().forward(own, wanted)
            alone.append(self.said[key])
        insides = {
            kind: {layer: _joined([getattr(one, kind)[layer] for one in alone], kind, max(lengths)) for layer in layers}
            for kind in KINDS
            if (layers := getattr(alone[0], kind))
        }
        return Output(torch.cat([one.logits for one in alone]), **insides)


def _joined(parts: Sequence[Tensor], kind: str, longest: int) -> Tensor:
    """Tensors of one text each as one batch."""
    shape = list(parts[0].shape[1:])
    for side in {"hidden": (0,), "attention": (1, 2), "scores": (1, 2)}.get(kind, (1,)):
        shape[side] = longest
    whole = torch.full((len(parts), *shape), 3.0 if kind != "attention" else -1e9)
    for row, part in enumerate(parts):
        whole[row][tuple(slice(side) for side in part.shape[1:])] = part[0]
    return whole


def alone(material: Material) -> Ensemble:
    """The two teachers of the tests, reading one text at a time."""
    return Ensemble([Alone.like(teacher) for teacher in phases.ensemble(material).members()])


@dataclass(frozen=True)
class Result:
    """What comes out of a training, and which texts each teacher was asked about, by batch."""

    weights: dict[str, Tensor]
    logged: list[dict[str, float]]
    asked: dict[str, list[list[tuple[int, ...]]]]


@dataclass
class Desk:
    """Makes phases whose teachers keep their answers in a folder, and closes the files.

    Attributes:
        material: of the phases.
        folder: of all stores and checkpoints.
        teachers: makes the ensemble.
    """

    material: Material
    folder: Path
    teachers: Callable[[Material], Ensemble] = alone
    opened: list[Teaching] = field(default_factory=list)

    @property
    def answers(self) -> Path:
        """The folder of all stores."""
        return self.folder / "answers"

    def phase(
        self, terms: Terms, limit: int | None = ENDLESS, steps: int = 3 * EPOCH, dropout: float = 0.0, processes: int = 1
    ) -> Phase:
        """A phase of three epochs whose teachers may keep ``limit`` bytes; None for teachers that keep nothing."""
        made = phases.phase(self.material, [Part(steps)], terms=terms, dropout=dropout)
        made.train = samples(self.material)
        made.ensemble = self.teaching(made, limit, processes)
        return made

    def teaching(self, made: Phase, limit: int | None = ENDLESS, processes: int = 1) -> Teaching:
        """The teachers of a phase, as the job puts them together."""
        ensemble, wants = self.teachers(self.material), wants_of(made.stages)
        stores: dict[str, OutputStore] | None = None
        if limit is not None:
            members = [teacher for teacher in ensemble.members() if teacher.name in wants]
            found = stores_for(members, made.train, wants, len(LABELS), self.answers, limit, processes)
            stores = found.by_teacher
        self.opened.append(Teaching(ensemble, made.train, wants, stores))
        return self.opened[-1]

    def train(self, made: Phase, **settings: Any) -> Result:
        """Train a phase."""
        told = Told()
        trainer(self.folder / str(len(self.opened)), told, **{"evaluations_per_epoch": 1, **settings}).run(made)
        return Result(weights(made), [dict(event.values) for event in told.of(Logged)], asked(made))

    def close(self) -> None:
        """Close all files."""
        for teaching in self.opened:
            teaching.close()


def asked(made: Phase) -> dict[str, list[list[tuple[int, ...]]]]:
    """The texts that each teacher was asked about, by batch."""
    assert isinstance(made.ensemble, Teaching)
    return {teacher.name: teacher.asked for teacher in made.ensemble.ensemble.members() if isinstance(teacher, Alone)}


def kept(made: Phase) -> dict[str, int]:
    """How many answers of each teacher are there."""
    assert isinstance(made.ensemble, Teaching)
    return {name: len(store) for name, store in made.ensemble.stores.items()}


def different_texts(made: Phase, name: str) -> int:
    """How many texts of a phase are not the same to a teacher."""
    view = made.train.views[name]
    return len({tuple(view.ids[begin:end]) for begin, end in zip(view.bounds[:-1], view.bounds[1:], strict=True)})
