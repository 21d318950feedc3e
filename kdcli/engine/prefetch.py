"""Batches, made ready beside the training: cut, padded, with the teachers' kept answers, on the device."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.data.batching import Batch, Samples
from kdcli.engine.stages import Asking, ReadsAhead

_AHEAD = 2


@dataclass(frozen=True)
class Delivery:
    """This process's part of a global batch.

    Attributes:
        micro_batches: one after the other; never none.
        counts: whether they count: False for a stand-in, where a last batch is smaller than the processes.
        samples: in the global batch.
    """

    micro_batches: list[Batch]
    counts: bool
    samples: int


@dataclass(frozen=True)
class Cut:
    """How a global batch is cut.

    Attributes:
        process, processes: whose part is wanted, of how many.
        accumulation: micro-batches per process.
        group: samples that a term compares with each other and that stay together; 0 for the whole batch.
        tokens: of a padded micro-batch at the most, so that long texts do not need more memory than short ones; 0 for no
            bound. What stays together is not cut for it.
    """

    process: int
    processes: int
    accumulation: int
    group: int
    tokens: int = 0

    def shares(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The process's micro-batches; none where a last batch is smaller than the processes.

        Args:
            rows: the global batch.
            lengths: tokens of each of its samples.
        """
        size = self.group or len(rows)
        groups = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        pieces = min(len(groups), self.processes * self.accumulation)
        bounds = [len(groups) * piece // pieces for piece in range(pieces + 1)]
        shares = [np.concatenate(groups[begin:end]) for begin, end in itertools.pairwise(bounds)]
        mine = shares[self.process :: self.processes]
        if not self.tokens or self.group != 1:
            return mine
        most = max(1, self.tokens // int(lengths.max()))
        return [part for share in mine for part in np.array_split(share, -(-len(share) // most))]


def deliveries(
    steps: Iterable[NDArray[np.int64]], samples: Samples, ensemble: Asking | None, cut: Cut, device: torch.device
) -> Generator[Delivery]:
    """The batches of some steps, each made ready while those before it are trained on.

    Args:
        steps: sample numbers of every global batch.
        samples: from which they are cut.
        ensemble: whose kept answers are put in, if it keeps any.
        cut: which part of each batch is wanted.
        device: where the batches go.
    """
    ahead = ensemble if isinstance(ensemble, ReadsAhead) else None

    def make(rows: NDArray[np.int64]) -> Delivery:
        shares = cut.shares(rows, samples.lengths[rows])
        batches = []
        for share in shares or [rows[:1]]:
            batch = samples.batch(share)
            if ahead is not None:
                ahead.fetch(batch)
            batches.append(batch.to(device))
        return Delivery(batches, len(shares) > 0, len(rows))

    waiting: deque[Future[Delivery]] = deque()
    with ThreadPoolExecutor(1, "kdcli-batches") as thread:
        try:
            for rows in steps:
                waiting.append(thread.submit(make, rows))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
