"""What a loss term is: sums and counts, so that the loop can divide once however a batch is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from kdcli.data.batching import Batch
from kdcli.models.output import Output

Outputs = Mapping[str, Output]


@dataclass(frozen=True)
class Capture:
    """What a term needs of the models besides logits.

    Attributes:
        hidden: model name → layers whose hidden states are asked for.
    """

    hidden: Mapping[str, frozenset[int]] = field(default_factory=dict)


class Term(nn.Module):
    """One summand of the objective.

    A term is made of parts (one per teacher, say), each a total over some units (samples, tokens) of the batch. Its value is
    Σ over parts of total/count, where the count is taken over everything that one optimiser step sees: all micro-batches of
    all processes. That makes 8×1, 2×4 and two processes of 4 the same step.

    Attributes:
        name: stands in logs.
        weight: factor in the objective.
        parts: how many parts there are.
        needs: what must be captured.
        observing: whether the next forward pass shall leave figures worth logging in ``observed`` (they cost a little).
    """

    name: str = "term"
    parts: int = 1
    needs: Capture = Capture()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.observing = False
        self.observed: dict[str, Tensor] = {}

    def count(self, batch: Batch) -> Tensor:
        """Units [parts] in the batch, fp32; known before any model has run."""
        raise NotImplementedError

    def forward(self, batch: Batch, outputs: Outputs) -> Tensor:
        """Totals [parts] over the batch's units, fp32."""
        raise NotImplementedError
