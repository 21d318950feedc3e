"""Models whose outputs depend on how a text is padded: they are given each length by itself, so that nothing is padded.

XLNet's head reads the last place of a batch, Funnel pools neighbours, FNet and Nyströmformer mix all places: padded, a text
is answered otherwise than alone, and a score would depend on which texts stand in a batch together.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_MATTERS = 1e-2  # of the largest output; ConvBERT's convolutions see 1e-3 of it, XLNet is off by a fifth and more
_LENGTH_BY_LENGTH = "gives_each_length_by_itself"


def leans_on_padding(model: Any, longest: int) -> bool:
    """Whether a model answers a few tokens otherwise when they are padded; ``longest`` tokens are the most that it takes."""
    config = model.config
    tokens = [row for row in range(min(config.vocab_size, 64)) if row != config.pad_token_id][-min(7, longest // 2) :]
    ids = torch.tensor([tokens])
    padded = functional.pad(ids, (0, len(tokens)), value=config.pad_token_id or 0)
    mask = functional.pad(torch.ones_like(ids), (0, len(tokens)))
    with torch.inference_mode():
        alone = _said(model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)), len(tokens))
        among = _said(model(input_ids=padded, attention_mask=mask), len(tokens))
    return float((alone - among).abs().max()) > _MATTERS * max(float(alone.abs().max()), 1e-3)


def give_each_length_by_itself(model: Any) -> None:
    """Let a model see the texts of a batch without padding, those of one length at a time; its outputs are as for a batch."""
    inner = model.forward

    @wraps(inner)
    def forward(input_ids: Tensor, attention_mask: Tensor, **more: Tensor) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **more}
        lengths, parts = attention_mask.sum(1), []
        for length in torch.unique(lengths).tolist():
            rows = (lengths == length).nonzero()[:, 0]
            parts.append((rows, inner(**{name: value[rows, :length] for name, value in inputs.items()})))
        first = parts[0][1]
        found = {
            name: _together([(rows, output[name]) for rows, output in parts], input_ids.shape)
            for name in ("logits", "last_hidden_state")
            if name in first
        }
        return type(first)(**found)

    model.forward = forward
    setattr(model, _LENGTH_BY_LENGTH, True)


def is_given_each_length_by_itself(model: Any) -> bool:
    """Whether :func:`give_each_length_by_itself` was applied to a model."""
    return bool(getattr(model, _LENGTH_BY_LENGTH, False))


def _together(parts: list[tuple[Tensor, Tensor]], shape: torch.Size) -> Tensor:
    """Outputs [b, …] of groups of rows as those of the batch; where they are by token, [b, l, D], zeros are the padding."""
    _, first = parts[0]
    size = (shape[0], *first.shape[1:]) if first.dim() == 2 else (*shape, first.shape[-1])
    whole = first.new_zeros(size)
    for rows, output in parts:
        padded = output if output.dim() == 2 else functional.pad(output, (0, 0, 0, shape[1] - output.shape[1]))
        whole = whole.index_copy(0, rows, padded)
    return whole


def _said(output: Any, length: int) -> Tensor:
    """Logits, or the states of the first ``length`` tokens."""
    found: Tensor = output.logits if "logits" in output else output.last_hidden_state[:, :length]
    return found.float()
