"""What a model says of a batch, and what of its insides somebody wants to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

Layers = frozenset[int]
_NONE: Layers = frozenset()


@dataclass(frozen=True)
class Wanted:
    """Layers whose insides are asked for, by kind; layer 0 is the embeddings, layer 1 the first block.

    Attributes:
        hidden: states [B, L, D] that leave the layer.
        attention: logarithms of the attention probabilities [B, A, L, L], before dropout.
        scores: scaled attention scores before mask and softmax [B, A, L, L].
        queries, keys, values: projected states per head [B, A, L, D/A].
    """

    hidden: Layers = _NONE
    attention: Layers = _NONE
    scores: Layers = _NONE
    queries: Layers = _NONE
    keys: Layers = _NONE
    values: Layers = _NONE

    @classmethod
    def of(cls, kind: str, layers: Iterable[int]) -> Wanted:
        """Layers of one kind, named as its attribute is."""
        return cls(**{kind: frozenset(layers)})

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(**{kind: getattr(self, kind) | getattr(other, kind) for kind in KINDS})

    def __bool__(self) -> bool:
        return any(getattr(self, kind) for kind in KINDS)

    def kinds(self) -> frozenset[str]:
        """The kinds of which anything is asked for."""
        return frozenset(kind for kind in KINDS if getattr(self, kind))

    @property
    def inside_attention(self) -> Layers:
        """Layers of which anything inside the attention is asked for."""
        return self.attention | self.scores | self.queries | self.keys | self.values


KINDS = tuple(entry.name for entry in fields(Wanted))


@dataclass(frozen=True)
class Output:
    """One model's answer.

    Attributes:
        logits: [B, C].
        hidden, attention, scores, queries, keys, values: layer → tensor, for the layers that were asked for (see
            :class:`Wanted` for the shapes).
    """

    logits: Tensor
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    attention: Mapping[int, Tensor] = field(default_factory=dict)
    scores: Mapping[int, Tensor] = field(default_factory=dict)
    queries: Mapping[int, Tensor] = field(default_factory=dict)
    keys: Mapping[int, Tensor] = field(default_factory=dict)
    values: Mapping[int, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Output:
        """The same answer on a device; on the way to a GPU through pinned memory, so that nobody waits for the copy."""
        pins = device.type == "cuda"
        return self.mapped(lambda _, tensor: (tensor.pin_memory() if pins else tensor).to(device, non_blocking=True))

    def mapped(self, change: Callable[[str, Tensor], Tensor]) -> Output:
        """The answer with every tensor changed; ``change`` is told the kind (an attribute's name) of each."""
        internals = {kind: {layer: change(kind, tensor) for layer, tensor in getattr(self, kind).items()} for kind in KINDS}
        return Output(change("logits", self.logits), **internals)
