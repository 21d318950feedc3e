"""Batches of like length, drawn so that order and composition depend on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.data.alignment import Alignment
from kdcli.data.tokens import TokenView

_WINDOW = 32


@dataclass
class AlignedRuns:
    """An :class:`Alignment` for one batch: runs [B, L_S] of teacher tokens, or the identity."""

    first: Tensor
    last: Tensor
    identity: bool

    def matched(self) -> Tensor:
        """[B, L_S], True where a student token has a counterpart."""
        return self.last > self.first

    def pull(self, states: Tensor) -> Tensor:
        """Teacher states [B, L_T, D] at the student's tokens [B, L_S, D]: the mean over each run, P·H."""
        if self.identity:
            return states
        return torch.bmm(self._averaging(states), states)

    def pull_attention(self, attention: Tensor) -> Tensor:
        """Teacher attention [B, A, L_T, L_T] between the student's tokens [B, A, L_S, L_S]: P·A·Q.

        Rows are averaged over each run; a teacher token's mass is spread evenly over the student tokens that it overlaps.
        Mass on teacher tokens without a counterpart is lost, and the rows that lost some are scaled to sum to 1 again.
        """
        if self.identity:
            return attention
        inside = self._inside(attention)  # [B, L_S, L_T]
        spreading = (inside / inside.sum(1, keepdim=True).clamp(min=1)).transpose(1, 2)  # [B, L_T, L_S]
        moved = torch.matmul(torch.matmul(self._averaging(attention)[:, None], attention), spreading[:, None])
        return moved / moved.sum(-1, keepdim=True).clamp(min=torch.finfo(moved.dtype).tiny)

    def pull_scores(self, scores: Tensor) -> Tensor:
        """Teacher scores [B, A, L_T, L_T] between the student's tokens [B, A, L_S, L_S]: means over pairs of runs, P·S·Pᵀ."""
        if self.identity:
            return scores
        averaging = self._averaging(scores)[:, None]
        return torch.matmul(torch.matmul(averaging, scores), averaging.transpose(-1, -2))

    def _inside(self, like: Tensor) -> Tensor:
        """[B, L_S, L_T], 1 where a teacher token is in a student token's run."""
        places = torch.arange(like.shape[-2], device=like.device)
        return ((places >= self.first[..., None]) & (places < self.last[..., None])).to(like.dtype)

    def _averaging(self, like: Tensor) -> Tensor:
        """P [B, L_S, L_T], whose rows sum to 1, or to 0 where there is no counterpart."""
        count = (self.last - self.first).clamp(min=1)[..., None]
        return self._inside(like) / count.to(like.dtype)


class Movable(Protocol):
    """What can be brought to a device."""

    def to(self, device: torch.device) -> Any:
        """The same on a device."""


@dataclass
class Batch:
    """What one step sees.

    Attributes:
        rows: sample numbers [B].
        targets: [B] (see :class:`~kdcli.data.task.Split`), the kind’s mark for a sample without one, or None.
        views: model name → its inputs (``input_ids``, ``attention_mask``, ``token_type_ids`` where it takes them).
        runs: teacher name → where its tokens meet the student's; empty where there is no student.
        out_of_fold: teacher name → logits [B, C] of a copy that was trained without these samples, where there are such.
        numbers: the sample numbers once more, always on the CPU.
        answers: teacher name → what it says of these samples, where that is known already.
    """

    rows: Tensor
    targets: Tensor | None
    views: dict[str, dict[str, Tensor]]
    runs: dict[str, AlignedRuns]
    out_of_fold: dict[str, Tensor] = field(default_factory=dict)
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    outputs: dict[str, Movable] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; on the way to a GPU through pinned memory, so that nobody waits for the copy."""
        if device.type == "cpu":
            return self
        moved: dict[int, dict[str, Tensor]] = {}
        for view in self.views.values():  # models of one tokenizer share their view
            if id(view) not in moved:
                moved[id(view)] = {key: _sent(value, device) for key, value in view.items()}
        return Batch(
            _sent(self.rows, device),
            None if self.targets is None else _sent(self.targets, device),
            {name: moved[id(view)] for name, view in self.views.items()},
            {
                name: AlignedRuns(_sent(runs.first, device), _sent(runs.last, device), runs.identity)
                for name, runs in self.runs.items()
            },
            {name: _sent(logits, device) for name, logits in self.out_of_fold.items()},
            self.numbers,
            {name: output.to(device) for name, output in self.outputs.items()},
        )


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class Samples:
    """A tokenised split from which batches are cut.

    Args:
        targets: [n] (see :class:`~kdcli.data.task.Split`), the kind’s mark for a sample without one, or None.
        views: model name → the split as that model's tokenizer sees it.
        alignments: teacher name → alignment with ``student``'s tokens.
        leading: the view whose lengths the batches are sorted by.
        out_of_fold: teacher name → logits [n, C] of copies that were trained without the sample.
    """

    def __init__(
        self,
        targets: NDArray[np.int64] | None,
        views: Mapping[str, TokenView],
        alignments: Mapping[str, Alignment],
        leading: str,
        out_of_fold: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.targets = targets
        self.views = views
        self.alignments = alignments
        self.leading = leading
        self.out_of_fold = dict(out_of_fold or {})

    def __len__(self) -> int:
        return len(self.views[self.leading])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per sample [n] in the leading view."""
        return self.views[self.leading].lengths

    def batch(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The samples at ``rows``, padded to the longest of them in each view."""
        chosen = np.asarray(rows, dtype=np.int64)
        made: dict[int, dict[str, Tensor]] = {}
        views = {}
        for name, view in self.views.items():
            if id(view) not in made:
                made[id(view)] = _padded_view(view, chosen)
            views[name] = made[id(view)]
        lead = self.views[self.leading]
        runs = {
            name: AlignedRuns(
                _padded(alignment.first, lead.bounds, chosen, 0),
                _padded(alignment.last, lead.bounds, chosen, 0),
                alignment.identity,
            )
            for name, alignment in self.alignments.items()
        }
        targets = None if self.targets is None else torch.from_numpy(self.targets[chosen])
        unseen = {name: torch.from_numpy(logits[chosen]) for name, logits in self.out_of_fold.items()}
        return Batch(torch.from_numpy(chosen), targets, views, runs, unseen, chosen)


def _padded_view(view: TokenView, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    lengths = torch.from_numpy(view.lengths[rows])
    width = int(lengths.max())
    inputs = {
        "input_ids": _padded(view.ids, view.bounds, rows, view.pad_id),
        "attention_mask": (torch.arange(width) < lengths[:, None]).to(torch.int64),
    }
    if view.type_ids is not None:
        inputs["token_type_ids"] = _padded(view.type_ids, view.bounds, rows, 0)
    return inputs


def _padded(flat: NDArray[np.generic], bounds: NDArray[np.int64], rows: NDArray[np.int64], filler: int) -> Tensor:
    """Ragged rows as one matrix [B, longest], int64."""
    begin, end = bounds[rows], bounds[rows + 1]
    lengths = end - begin
    places = np.arange(lengths.max())
    inside = places < lengths[:, None]
    source = np.where(inside, begin[:, None] + places, 0)
    return torch.from_numpy(np.where(inside, flat[source], filler).astype(np.int64))


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Every sample once, in batches of like length.

    The samples are shuffled, cut into windows of a few dozen batches, sorted by length inside each window, and cut into
    batches whose order is shuffled again.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    window = _WINDOW * batch_size
    batches = []
    for begin in range(0, len(order), window):
        part = order[begin : begin + window]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[row : row + batch_size] for row in range(0, len(part), batch_size)]
    return [batches[place] for place in generator.permutation(len(batches))]


def sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Every sample once, the longest batch first; for inference, where order does not matter."""
    order = np.argsort(-lengths, kind="stable")
    return [order[row : row + batch_size] for row in range(0, len(order), batch_size)]
