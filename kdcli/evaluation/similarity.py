"""How alike the layers of two models are: debiased linear CKA, and the layer map along which it is highest.

CKA compares how two layers arrange the same tokens, whatever their widths, rotation, shift and scale (Kornblith et al. 2019).
The plain estimate is about D/n for states of width D that have nothing to do with each other; this one is about 0 (unbiased
HSIC of Song et al. 2012, as Nguyen et al. 2021 use it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]
_FEWEST_TOKENS = 4  # the unbiased HSIC divides by n − 3
_CONSTANT = 1e-7  # what rounding to float32 leaves of states that do not vary


def cka(ours: Sequence[States], theirs: Sequence[States]) -> Matrix:
    """Debiased linear CKA of every pair of layers, [layers of ours, layers of theirs].

    1 for the same arrangement, about 0 (and below it by chance) for unrelated states, 0 for states that do not vary.

    Shapes: [n, D] for each layer, the same n tokens everywhere.
    """
    rows = [_arrangement(states) for states in ours]
    found = np.empty((len(ours), len(theirs)))
    for column, states in enumerate(theirs):
        other = _arrangement(states)
        found[:, column] = [_inner(row, other) for row in rows]
    return np.minimum(found, 1.0)


def _arrangement(states: States) -> NDArray[np.float32]:
    """The Gram matrix [n, n] of a layer, U-centred and of norm 1, so that CKA is an inner product of two of them.

    U-centring (Székely and Rizzo 2014) makes the inner product n(n − 3) times the unbiased HSIC. States that do not vary
    give zeros.
    """
    count = len(states)
    wide = states.astype(np.float64)
    centred = wide - wide.mean(axis=0) if count else wide
    length = np.linalg.norm(centred)
    if count < _FEWEST_TOKENS or length <= _CONSTANT * np.linalg.norm(wide):
        return np.zeros((count, count), dtype=np.float32)
    narrow = (centred * (np.sqrt(count) / length)).astype(np.float32)
    gram: NDArray[np.float32] = narrow @ narrow.T
    np.fill_diagonal(gram, 0.0)
    sums = gram.sum(axis=1, dtype=np.float64)
    shift = ((sums - sums.sum() / (2 * (count - 1))) / (count - 2)).astype(np.float32)
    gram -= shift[:, None]
    gram -= shift[None, :]
    np.fill_diagonal(gram, 0.0)
    norm = np.sqrt(_inner(gram, gram))
    if norm:
        gram /= np.float32(norm)
    return gram


def _inner(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Σ of the products; rows in fp32, their sum in fp64."""
    return float(np.einsum("ij,ij->i", one, other).sum(dtype=np.float64))


def best_map(similarity: Matrix) -> dict[int, int]:
    """The layer map, student layer 1…K → teacher layer 1…T, with the highest mean of a matrix [K+1, T+1] such as :func:`cka`.

    It rises strictly where the teacher is as deep as the student at least, and otherwise never falls. Where several maps are
    as good, the higher student layers take the lowest teacher layers first.

    >>> best_map(np.array([[1, 0, 0, 0], [0, 0.8, 0.9, 0.1], [0, 0.1, 0.9, 0.3]]))
    {1: 1, 2: 2}
    """
    depth, deepest = similarity.shape[0] - 1, similarity.shape[1] - 1
    step = 1 if depth <= deepest else 0
    best = similarity[1, 1:].astype(np.float64)  # sums of the best maps that end at each teacher layer
    before: list[list[int]] = []
    for layer in range(2, depth + 1):
        ends = [_end_of_best(best, last + 1 - step) for last in range(deepest)]
        before.append(ends)
        best = similarity[layer, 1:] + np.array([best[end] if end >= 0 else -np.inf for end in ends])
    last = int(best.argmax())
    chosen = [last]
    for ends in reversed(before):
        chosen.append(ends[chosen[-1]])
    return {layer: row + 1 for layer, row in enumerate(reversed(chosen), 1)}


def _end_of_best(best: Matrix, count: int) -> int:
    """Where the best of the first ``count`` is, −1 if there is none."""
    return int(best[:count].argmax()) if count else -1


def mean_along(similarity: Matrix, pairs: Mapping[int, int]) -> float:
    """Mean of a matrix [K+1, T+1] along a layer map, which has a pair at least."""
    return float(np.mean([similarity[ours, theirs] for ours, theirs in pairs.items()]))
