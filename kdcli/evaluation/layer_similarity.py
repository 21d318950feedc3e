"""A student's layers beside those of its teachers: states of tokens, states of [CLS], attention maps.

All figures are of one pass over the same texts. Attention is compared as :class:`~kdcli.losses.attention_kl.AttentionKlTerm`
does it, but for all pairs of layers: KL(teacher ‖ student) = Σ p log p − Σ p log q, so that the first sum is taken once per
teacher layer and the second one is a matrix product over all cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kdcli.data.batching import Batch, Samples
from kdcli.engine.inference import EVALUATION_BATCH
from kdcli.errors import RequestError
from kdcli.evaluation.document import LayerComparison, TeacherSimilarity
from kdcli.evaluation.similarity import best_map, cka, mean_along
from kdcli.losses.attention import LOWEST_LOG, over_matched_tokens
from kdcli.losses.layer_term import matched_tokens
from kdcli.models.capture import blocks, serves
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT, STUDENT_NAME, StudentLearner
from kdcli.models.teachers import Teacher

MOST_TOKENS = 2048
"""How many tokens CKA is computed over, at the most."""

_SEED = 0
_MOST_CELLS = 2**16  # of one head's attention in a batch: 4 texts of 128 tokens


@torch.inference_mode()
def compare_layers(
    student: StudentLearner,
    teachers: Sequence[Teacher],
    samples: Samples,
    device: torch.device,
    maps: Mapping[str, Mapping[int, int]],
    split: str,
    student_name: str = STUDENT_NAME,
    batch_size: int = EVALUATION_BATCH,
) -> LayerComparison:
    """Compare all layers of a student with all layers of each teacher; the models are left on the device, not training.

    CKA is over the same tokens for all teachers: drawn, with a fixed seed, from those that have a counterpart in the text of
    each of them. Models that show nothing of their insides are left out.

    Args:
        student: the trained student.
        teachers: those it is compared with.
        samples: the texts, with a view and an alignment for each teacher, led by the student's view.
        device: where the models are asked.
        maps: teacher name → the recipe's layer map; may be empty.
        split: what the texts are from.
        student_name: as it stands in the result.
        batch_size: texts at a time, at the most; fewer of long ones.
    """
    ours = _Side(student.model.to(device).eval())
    sides = {teacher.name: _Side(teacher.to(device).model) for teacher in teachers} if ours.readable else {}
    readable = [teacher for teacher in teachers if teacher.name in sides and sides[teacher.name].readable]
    tokens = _Tokens(samples, [teacher.name for teacher in readable])
    own = _States(tokens)
    found = {teacher.name: _Comparison(teacher.name, _States(tokens)) for teacher in readable}
    for rows in _batches(samples.lengths, batch_size) if readable else ():
        batch = samples.batch(rows).to(device)
        shown = student.output(batch.views[STUDENT], ours.wanted)
        for layer, states in shown.hidden.items():
            own.take(batch, layer, states)
        for teacher in readable:
            output = teacher(batch.views[teacher.name], sides[teacher.name].wanted)
            found[teacher.name].add(batch, shown, output)
    return LayerComparison(
        student=student_name,
        split=split,
        rows=len(samples),
        tokens=len(tokens),
        teachers=[found[teacher.name].result(own, maps.get(teacher.name, {})) for teacher in readable],
    )


class _Side:
    """What one of the models can show: hidden states of layers 0…, and attention from layer 1 where there is any."""

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config
        kinds = serves(config) if _has_blocks(model) else frozenset()
        depth = int(config.num_hidden_layers) if kinds else 0
        self.readable = "hidden" in kinds
        self.wanted = Wanted.of("hidden", range(depth + 1))
        if "attention" in kinds:
            self.wanted |= Wanted.of("attention", range(1, depth + 1))


def _has_blocks(model: nn.Module) -> bool:
    try:
        blocks(model)
    except RequestError:
        return False
    return True


def _batches(lengths: NDArray[np.int64], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Every sample once, the longest first, as many at a time as the attention of all layers has room for."""
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        size = max(1, min(batch_size, _MOST_CELLS // int(lengths[order[begin]]) ** 2))
        yield order[begin : begin + size]
        begin += size


class _Tokens:
    """The student's tokens that CKA is computed over, chosen before any model runs."""

    def __init__(self, samples: Samples, teachers: Sequence[str]) -> None:
        bounds = samples.views[STUDENT].bounds
        matched = np.ones(int(bounds[-1]), dtype=bool)
        for name in teachers:
            matched &= samples.alignments[name].last > samples.alignments[name].first
        known = np.flatnonzero(matched)
        if len(known) > MOST_TOKENS:
            known = np.sort(np.random.default_rng(_SEED).choice(known, MOST_TOKENS, replace=False))
        self.sample = np.searchsorted(bounds, known, side="right") - 1
        self.place = known - bounds[self.sample]
        self._row = np.full(len(samples), -1)

    def __len__(self) -> int:
        return len(self.sample)

    def within(self, batch: Batch) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Those of a batch: which of the chosen ones they are, their row and their place in it."""
        self._row[:] = -1
        self._row[batch.numbers] = np.arange(len(batch))
        row = self._row[self.sample]
        chosen = np.flatnonzero(row >= 0)
        device = batch.rows.device
        return chosen, torch.from_numpy(row[chosen]).to(device), torch.from_numpy(self.place[chosen]).to(device)


class _States:
    """One model's states of the chosen tokens, a row for each and nothing else; layer after layer."""

    def __init__(self, tokens: _Tokens) -> None:
        self.tokens = tokens
        self.by_layer: dict[int, NDArray[np.float32]] = {}

    def take(self, batch: Batch, layer: int, states: Tensor) -> None:
        """Keep what of a layer's states [B, L_S, D] belongs to chosen tokens."""
        chosen, rows, places = self.tokens.within(batch)
        if layer not in self.by_layer:
            self.by_layer[layer] = np.zeros((len(self.tokens), states.shape[-1]), dtype=np.float32)
        self.by_layer[layer][chosen] = states[rows, places].float().cpu().numpy()

    def layers(self) -> list[NDArray[np.float32]]:
        """From layer 0 upwards."""
        return [self.by_layer[layer] for layer in sorted(self.by_layer)]


class _Comparison:
    """What is found out about one teacher, batch after batch."""

    def __init__(self, teacher: str, states: _States) -> None:
        self.teacher, self.states = teacher, states
        self.samples = self.queries = 0
        self.heads: Literal["match", "mean"] = "match"
        self.cosine: Tensor | None = None
        self.divergence: Tensor | None = None
        self.by_head: Tensor | None = None

    def add(self, batch: Batch, ours: Output, theirs: Output) -> None:
        """Take in a batch."""
        for layer, states in theirs.hidden.items():
            self.states.take(batch, layer, batch.runs[self.teacher].pull(states))
        self.samples += len(batch)
        if ours.hidden[0].shape[-1] == theirs.hidden[0].shape[-1]:
            cosine = torch.einsum("kbd,tbd->kt", _directions(ours.hidden), _directions(theirs.hidden))
            self.cosine = cosine if self.cosine is None else self.cosine + cosine
        if ours.attention and theirs.attention:
            self._add_attention(batch, ours.attention, theirs.attention)

    def _add_attention(self, batch: Batch, ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor]) -> None:
        mine = [ours[layer].float() for layer in sorted(ours)]
        self.heads = "match" if mine[0].shape[1] == theirs[1].shape[1] else "mean"
        wanted = torch.stack([self._wanted(batch, theirs[layer]) for layer in sorted(theirs)])
        by_head = _divergences(torch.stack([self._logs(batch, logs) for logs in mine]), wanted)
        if self.heads == "match":
            divergence = by_head.mean(-1)
        else:
            means = [torch.logsumexp(logs, 1, keepdim=True) - math.log(logs.shape[1]) for logs in mine]
            divergence = _divergences(torch.stack([self._logs(batch, logs) for logs in means]), wanted)[..., 0]
        self.by_head = by_head if self.by_head is None else self.by_head + by_head
        self.divergence = divergence if self.divergence is None else self.divergence + divergence
        self.queries += int(matched_tokens(batch, self.teacher).sum())

    def _wanted(self, batch: Batch, logs: Tensor) -> Tensor:
        """The teacher's probabilities [B, A, L_S, L_S] in the student's tokens, 0 in rows without a counterpart."""
        wanted = logs.float().exp()
        if self.heads == "mean":
            wanted = wanted.mean(1, keepdim=True)
        wanted = batch.runs[self.teacher].pull_attention(wanted)
        return wanted.masked_fill(~matched_tokens(batch, self.teacher)[:, None, :, None], 0.0)

    def _logs(self, batch: Batch, logs: Tensor) -> Tensor:
        """The student's logarithms [B, A, L_S, L_S], over the tokens that have a counterpart."""
        return over_matched_tokens(batch, self.teacher, logs).clamp(min=LOWEST_LOG)

    def result(self, own: _States, pairs: Mapping[int, int]) -> TeacherSimilarity:
        """All that was found, along the recipe's layer map and the one that CKA suggests."""
        similarity = cka(own.layers(), self.states.layers())
        suggested = best_map(similarity)
        chosen = [pairs.get(layer) or theirs for layer, theirs in suggested.items()]  # layer 0 has no attention
        by_head = None
        if self.by_head is not None:
            by_head = torch.stack([self.by_head[row, theirs - 1] for row, theirs in enumerate(chosen)])
        return TeacherSimilarity(
            teacher=self.teacher,
            cka=similarity.tolist(),
            cls_cosine=_means(self.cosine, self.samples, lowest=-1.0),
            attention_kl=_means(self.divergence, self.queries),
            head_kl=_means(by_head, self.queries),
            heads=self.heads,
            map=dict(sorted(pairs.items())),
            map_cka=mean_along(similarity, pairs) if pairs else None,
            suggested=suggested,
            suggested_cka=mean_along(similarity, suggested),
        )


def _directions(hidden: Mapping[int, Tensor]) -> Tensor:
    """States of the first token, divided by their lengths; [layers, B, D], fp64."""
    first = torch.stack([hidden[layer][:, 0] for layer in sorted(hidden)])
    return functional.normalize(first.double(), dim=-1)


def _divergences(logs: Tensor, wanted: Tensor) -> Tensor:
    """Totals over query tokens of KL(wanted ‖ student) for each pair of layers and student head, [K, T, A], fp64.

    Shapes: logs [K, B, A, L, L]; wanted [T, B, A, L, L], or one head for all.
    """
    cells = wanted.flatten(3)
    own = torch.stack([torch.special.xlogy(layer, layer).sum(-1) for layer in cells])  # [T, B, A]
    cross = torch.einsum("kban,tban->bakt", logs.flatten(3), cells)
    return own.double().sum(1)[None] - cross.double().sum(0).permute(1, 2, 0)


def _means(totals: Tensor | None, count: int, lowest: float = 0.0) -> list[list[float]] | None:
    """Totals divided by their count; below ``lowest`` is rounding."""
    if totals is None:
        return None
    means: list[list[float]] = (totals / max(count, 1)).clamp(min=lowest).tolist()
    return means
