"""What a model says of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Output:
    """The answer of one model.

    Attributes:
        logits: [B, C], classes in the task's order.
        hidden: layer → hidden states [B, L, D]; 0 is the embeddings, only the layers that were asked for.
    """

    logits: Tensor
    hidden: dict[int, Tensor] = field(default_factory=dict)
