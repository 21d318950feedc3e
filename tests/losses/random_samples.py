"""Random samples for the loss terms: ragged float64 arrays, and batches of any rows cut from them with garbage as padding."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.batching import AlignedRuns, Batch
from kdcli.models.output import KINDS, Output
from kdcli.models.student import STUDENT

Array = NDArray[np.float64]
CLASSES = 3
TEACHERS = ("bert", "roberta")
THREE = (*TEACHERS, "deberta")
WIDTHS = {STUDENT: 6, "bert": 12, "roberta": 3}
HEADS = {STUDENT: 2, "bert": 4, "roberta": 3}
LAYERS = {STUDENT: 2, "bert": 4, "roberta": 3}
SAME_WIDTHS = dict.fromkeys(WIDTHS, 6)
SAME_HEADS = dict.fromkeys(HEADS, 2)
TOKEN_AXES = {"hidden": (0,), "attention": (1, 2), "scores": (1, 2), "queries": (1,), "keys": (1,), "values": (1,)}
LOWEST = float(np.finfo(np.float32).min)


class RandomSamples:
    """Samples as a student and three teachers answer them.

    The first teacher splits the text as the student does, the second one differently: its runs are random, some are empty. The
    third one shows its logits alone.

    Attributes:
        labels: [n], −1 where there is none.
        logits: model → [n, C].
        out_of_fold: teacher → [n, C].
        insides: kind → model → layer → one array per sample, as long as its text: hidden [L, D], attention (logarithms) and
            scores [A, L, L], queries, keys and values [A, L, D/A].
        runs: one [L, 2] of first and last per sample, for the second teacher.
    """

    def __init__(
        self,
        count: int = 8,
        seed: int = 0,
        *,
        widths: Mapping[str, int] = WIDTHS,
        heads: Mapping[str, int] = HEADS,
        layers: Mapping[str, int] = LAYERS,
        unlabelled: Collection[int] = (),
        out_of_fold: Collection[str] = (),
    ) -> None:
        generator = np.random.default_rng(seed)
        self.lengths = {STUDENT: generator.integers(3, 8, count), "roberta": generator.integers(3, 9, count)}
        self.lengths["bert"] = self.lengths[STUDENT]
        self.labels = generator.integers(CLASSES, size=count)
        self.labels[list(unlabelled)] = -1
        self.logits: dict[str, Array] = {name: 2 * generator.normal(size=(count, CLASSES)) for name in (STUDENT, *THREE)}
        self.out_of_fold: dict[str, Array] = {name: generator.normal(size=(count, CLASSES)) for name in out_of_fold}
        self.insides: dict[str, dict[str, dict[int, list[Array]]]] = {}
        for kind in KINDS:
            self.insides[kind] = {name: {} for name in widths}
            for name in widths:
                for layer in range(0 if kind == "hidden" else 1, layers[name] + 1):
                    shapes = [_shape(kind, heads[name], length, widths[name]) for length in self.lengths[name]]
                    found: list[Array] = [generator.normal(size=shape) for shape in shapes]
                    if kind == "attention":
                        found = [_normal(values) for values in found]
                    self.insides[kind][name][layer] = found
        self.runs: list[NDArray[np.int64]] = []
        for row in range(count):
            first = generator.integers(self.lengths["roberta"][row], size=self.lengths[STUDENT][row])
            last = np.minimum(first + generator.integers(0, 4, len(first)), self.lengths["roberta"][row])
            last[0] = first[0]
            self.runs.append(np.stack([first, last], axis=1))

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, kind: str, model: str, layer: int) -> list[Array]:
        """One array per sample."""
        return self.insides[kind][model][layer]

    def counterparts(self, teacher: str, row: int) -> list[tuple[int, range]]:
        """Student tokens of a sample that have a counterpart, and which teacher tokens that is."""
        if teacher == "bert":
            return [(place, range(place, place + 1)) for place in range(self.lengths[STUDENT][row])]
        return [(place, range(first, last)) for place, (first, last) in enumerate(self.runs[row].tolist()) if last > first]

    def student(self, kind: str, layer: int) -> list[Array]:
        """What the student says: ``logits`` (of any layer) or one kind of its insides, one array per sample."""
        return list(self.logits[STUDENT]) if kind == "logits" else self.of(kind, STUDENT, layer)

    def moved(self, kind: str, layer: int, ways: Sequence[Array]) -> RandomSamples:
        """The same samples with the student elsewhere."""
        moved = copy.copy(self)
        there = [values + way for values, way in zip(self.student(kind, layer), ways, strict=True)]
        if kind == "logits":
            moved.logits = {**self.logits, STUDENT: np.stack(there)}
        else:
            models = self.insides[kind]
            moved.insides = {**self.insides, kind: {**models, STUDENT: {**models[STUDENT], layer: there}}}
        return moved

    def times(self, factor: float) -> RandomSamples:
        """The same samples with answers and insides of another scale; attention is the sharper for it."""
        scaled = copy.copy(self)
        scaled.logits = {name: factor * logits for name, logits in self.logits.items()}
        scaled.out_of_fold = {name: factor * logits for name, logits in self.out_of_fold.items()}
        scaled.insides = {
            kind: {
                name: {
                    layer: [_normal(factor * values) if kind == "attention" else factor * values for values in found]
                    for layer, found in layers.items()
                }
                for name, layers in models.items()
            }
            for kind, models in self.insides.items()
        }
        return scaled

    def cut(
        self, rows: Sequence[int] | None = None, more_padding: int = 0, garbage: float = 77.0, masked: float = LOWEST
    ) -> tuple[Batch, dict[str, Output]]:
        """The batch of those rows and what every model says of it, in fp32.

        Args:
            rows: in order; None for all.
            more_padding: tokens beyond the longest sample.
            garbage: what stands where a model answers for padding.
            masked: the logarithm of the attention to padding.
        """
        chosen = list(range(len(self))) if rows is None else list(rows)
        room = {name: int(lengths[chosen].max()) + more_padding for name, lengths in self.lengths.items()}
        real = {
            name: torch.arange(room[name]) < torch.from_numpy(lengths[chosen])[:, None]
            for name, lengths in self.lengths.items()
        }
        own = [np.arange(length) for length in self.lengths[STUDENT][chosen]]
        there = [self.runs[row] for row in chosen]
        width = room[STUDENT]
        runs = {
            "bert": AlignedRuns(padded(own, width).long(), padded([places + 1 for places in own], width).long(), identity=True),
            "roberta": AlignedRuns(
                padded([run[:, 0] for run in there], width).long(), padded([run[:, 1] for run in there], width).long(), False
            ),
        }
        outputs = {}
        for name, logits in self.logits.items():
            shown: dict[str, dict[int, Tensor]] = {
                kind: {
                    layer: padded([found[row] for row in chosen], room[name], TOKEN_AXES[kind], garbage)
                    for layer, found in self.insides[kind].get(name, {}).items()
                }
                for kind in KINDS
            }
            for layer, logs in shown["attention"].items():
                shown["attention"][layer] = (-logs.abs()).masked_fill(~real[name][:, None, None, :], masked)
            outputs[name] = Output(torch.tensor(logits[chosen], dtype=torch.float32), **shown)
        views = {name: {"attention_mask": mask.long()} for name, mask in real.items()}
        unseen = {name: torch.tensor(logits[chosen], dtype=torch.float32) for name, logits in self.out_of_fold.items()}
        return Batch(torch.tensor(chosen), torch.from_numpy(self.labels[chosen]), views, runs, unseen), outputs


def _shape(kind: str, heads: int, length: int, width: int) -> tuple[int, ...]:
    if kind == "hidden":
        return length, width
    return heads, length, length if kind in ("attention", "scores") else width // heads


def own_place(row: int, values: NDArray[np.generic]) -> tuple[int | slice, ...]:
    """Where a sample's values stand in the padded tensor."""
    return (row, *(slice(size) for size in values.shape))


def _normal(logits: Array) -> Array:
    """Logarithms of probabilities along the last axis."""
    below = logits - logits.max(-1, keepdims=True)
    logs: Array = below - np.log(np.exp(below).sum(-1, keepdims=True))
    return logs


def padded(ragged: Sequence[NDArray[np.generic]], room: int, axes: Sequence[int] = (0,), filler: float = 0.0) -> Tensor:
    """Ragged arrays as one fp32 tensor [B, …], their token axes filled up to ``room``."""
    shape = [room if axis in axes else size for axis, size in enumerate(ragged[0].shape)]
    whole = np.full((len(ragged), *shape), filler, dtype=np.float32)
    for row, values in enumerate(ragged):
        whole[own_place(row, values)] = values
    return torch.from_numpy(whole)
