"""Random samples for the loss terms: ragged float64 arrays, and batches of any rows cut from them with garbage as padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import AlignedRuns, Batch
from kdcli.losses.term import Outputs, Term
from kdcli.models.output import Output
from kdcli.models.student import STUDENT

Array = NDArray[np.float64]
CLASSES = 3
WIDTHS = {STUDENT: 4, "bert": 6, "roberta": 3}
LAYERS = {STUDENT: 2, "bert": 4, "roberta": 3}
TEACHERS = ("bert", "roberta")


class RandomSamples:
    """Samples as a student and two teachers answer them.

    The first teacher splits the text as the student does, the second one differently: its runs are random, some are empty.

    Attributes:
        labels: [n].
        logits: model → [n, C].
        hidden: model → layer → one [length, D] per sample.
        runs: one [length, 2] of first and last per sample, for the second teacher.
    """

    def __init__(self, count: int = 8, seed: int = 0, widths: dict[str, int] = WIDTHS) -> None:
        generator = np.random.default_rng(seed)
        self.lengths = {STUDENT: generator.integers(3, 8, count), "roberta": generator.integers(3, 9, count)}
        self.lengths["bert"] = self.lengths[STUDENT]
        self.labels = generator.integers(CLASSES, size=count)
        self.logits: dict[str, Array] = {name: 2 * generator.normal(size=(count, CLASSES)) for name in widths}
        self.hidden: dict[str, dict[int, list[Array]]] = {
            name: {
                layer: [generator.normal(size=(length, width)) for length in self.lengths[name]]
                for layer in range(LAYERS[name] + 1)
            }
            for name, width in widths.items()
        }
        self.runs: list[NDArray[np.int64]] = []
        for row in range(count):
            first = generator.integers(self.lengths["roberta"][row], size=self.lengths[STUDENT][row])
            last = np.minimum(first + generator.integers(0, 4, len(first)), self.lengths["roberta"][row])
            last[0] = first[0]
            self.runs.append(np.stack([first, last], axis=1))

    def __len__(self) -> int:
        return len(self.labels)

    def counterparts(self, teacher: str, row: int) -> list[tuple[int, slice]]:
        """Student tokens of a sample that have a counterpart, and which teacher tokens that is."""
        if teacher == "bert":
            return [(place, slice(place, place + 1)) for place in range(self.lengths[STUDENT][row])]
        return [(place, slice(first, last)) for place, (first, last) in enumerate(self.runs[row]) if last > first]

    def cut(self, rows: Sequence[int] | None = None, more_padding: int = 0) -> tuple[Batch, dict[str, Output]]:
        """The batch of those rows and what every model says of it, in fp32."""
        chosen = list(range(len(self))) if rows is None else list(rows)
        room = {name: max(int(lengths[row]) for row in chosen) + more_padding for name, lengths in self.lengths.items()}
        views = {
            name: {"attention_mask": _padded([np.ones(lengths[row]) for row in chosen], room[name], 0).long()}
            for name, lengths in self.lengths.items()
        }
        own = [np.arange(self.lengths[STUDENT][row]) for row in chosen]
        width = room[STUDENT]
        runs = {
            "bert": AlignedRuns(_padded(own, width, 0).long(), _padded([o + 1 for o in own], width, 0).long(), identity=True),
            "roberta": AlignedRuns(
                _padded([self.runs[row][:, 0] for row in chosen], width, 0).long(),
                _padded([self.runs[row][:, 1] for row in chosen], width, 0).long(),
                identity=False,
            ),
        }
        outputs = {
            name: Output(
                torch.tensor(self.logits[name][chosen], dtype=torch.float32),
                {
                    layer: _padded([states[row] for row in chosen], room[name], 77.0)
                    for layer, states in self.hidden[name].items()
                },
            )
            for name in self.logits
        }
        return Batch(torch.tensor(chosen), torch.from_numpy(self.labels[chosen]), views, runs), outputs


def _padded(ragged: Sequence[NDArray[np.generic]], width: int, filler: float) -> Tensor:
    """Ragged rows [length, …] as one fp32 tensor [B, width, …]."""
    whole = np.full((len(ragged), width, *ragged[0].shape[1:]), filler, dtype=np.float32)
    for row, values in enumerate(ragged):
        whole[row, : len(values)] = values
    return torch.from_numpy(whole)


def value(term: Term, batch: Batch, outputs: Outputs) -> Tensor:
    """What the term says of one batch: Σ over parts of total/count."""
    whole: Tensor = (term(batch, outputs) / term.count(batch)).sum()
    return whole


def value_of_parts(term: Term, batches: Sequence[tuple[Batch, Outputs]]) -> Tensor:
    """What the term says of a batch that was cut into several: totals and counts summed, then divided once."""
    totals = torch.stack([term(batch, outputs) for batch, outputs in batches]).sum(0)
    counts = torch.stack([term.count(batch) for batch, _ in batches]).sum(0)
    whole: Tensor = (totals / counts).sum()
    return whole
