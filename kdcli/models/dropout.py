"""Dropout that draws four of its numbers at once, for training on a CPU, where drawing takes longer than using them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_STEPS = 2**16


class QuickDropout(nn.Dropout):
    """Dropout whose chance is a multiple of 1/65,536; elsewhere than on a CPU it is torch's.

    Every value is kept with the chance 1 − p, drawn for itself, and divided by 1 − p.
    """

    def forward(self, states: Tensor) -> Tensor:
        """Dropped states, of the same shape."""
        dropped = round(self.p * _STEPS)
        if not self.training or dropped in (0, _STEPS) or states.device.type != "cpu" or self.inplace:
            return super().forward(states)
        count = states.numel()
        numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = (numbers[:count] >= dropped - _STEPS // 2).view(states.shape)
        return torch.where(kept, states, states.new_zeros(())).mul_(_STEPS / (_STEPS - dropped))


@contextmanager
def quick_dropout(models: Iterable[nn.Module]) -> Iterator[None]:
    """Let the plain dropout layers of some models be quick ones inside the ``with`` block."""
    layers = [layer for model in models for layer in model.modules() if type(layer) is nn.Dropout]
    for layer in layers:
        layer.__class__ = QuickDropout
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Dropout
