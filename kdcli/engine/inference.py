"""Asking models about a whole split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.data.batching import Batch, Samples, sorted_batches
from kdcli.models.output import Output

EVALUATION_BATCH = 64
Outputs = Callable[[Batch], dict[str, Output]]


@torch.inference_mode()
def predict(
    model: Outputs,
    samples: Samples,
    batch_size: int,
    device: torch.device,
    *,
    rank: int = 0,
    processes: int = 1,
    gather: Callable[[list[Any]], list[Any]] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Logits [n, C] of every model that answers, in sample order.

    With several processes each asks for its share of the batches, and ``gather`` brings the shares together on all of them.
    """
    batches = sorted_batches(samples.lengths, batch_size)
    share: list[Any] = []
    for rows in batches[rank::processes]:
        outputs = model(samples.batch(rows).to(device))
        share.append((rows, {name: output.logits.float().cpu().numpy() for name, output in outputs.items()}))
    whole: list[Any] = gather(share) if gather is not None and processes > 1 else share
    logits: dict[str, NDArray[np.float32]] = {}
    for rows, outputs in whole:
        for name, values in outputs.items():
            logits.setdefault(name, np.empty((len(samples), values.shape[1]), dtype=np.float32))[rows] = values
    return logits
