"""Training those rows of an embedding alone whose tokens occur.

A row whose token is in no text that is trained on gets no gradient in the whole training: AdamW and SGD do nothing to it but
weight decay. Such rows are most of the table (of 30,522 word pieces a thousand sentences use some 4,000), and their gradients
and moments are most of what an optimiser step reads and writes. They are left out while the model is trained and put back
afterwards with the decay that they would have had, so that the result is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kdcli.data.tokens import TokenView

_WORTH_IT = 0.9


class TrimmedEmbedding(nn.Module):
    """An embedding of the tokens that occur; looked up by the same token ids as the whole one.

    The last row belongs to no token. It starts at one and is never looked up, so that afterwards it holds the factor by which
    weight decay has shrunk every row without a gradient.

    Args:
        whole: the embedding with all rows.
        used: token ids that occur, ascending, each once.
    """

    def __init__(self, whole: nn.Embedding, used: NDArray[np.int64]) -> None:
        super().__init__()
        chosen = torch.from_numpy(used).to(whole.weight.device)
        witness = whole.weight.new_ones(1, whole.embedding_dim)
        self.weight = nn.Parameter(torch.cat([whole.weight.detach()[chosen], witness]), whole.weight.requires_grad)
        rows = torch.full((whole.num_embeddings,), len(used) + 1, device=whole.weight.device)  # out of range: an error
        rows[chosen] = torch.arange(len(used), device=rows.device)
        self.register_buffer("rows", rows, persistent=False)
        padding = whole.padding_idx
        self.padding_idx = int(rows[padding]) if padding is not None and padding in used else None
        self.num_embeddings, self.embedding_dim = whole.num_embeddings, whole.embedding_dim

    def forward(self, ids: Tensor) -> Tensor:
        """States [..., D] of token ids [...].

        Raises:
            IndexError: a token that was not among the used ones.
        """
        rows: Tensor = self.rows  # type: ignore[assignment]
        return functional.embedding(rows[ids], self.weight, self.padding_idx)

    @torch.no_grad()
    def put_back(self, whole: nn.Embedding, used: NDArray[np.int64]) -> None:
        """Write the rows into the whole embedding, and to all others what weight decay has done to them."""
        whole.weight.mul_(self.weight[-1].to(whole.weight.device))
        whole.weight[torch.from_numpy(used).to(whole.weight.device)] = self.weight[:-1].to(whole.weight.device)
        whole.weight.requires_grad_(self.weight.requires_grad)


@contextmanager
def trimmed(models: Mapping[str, nn.Module], views: Mapping[str, Sequence[TokenView]]) -> Iterator[None]:
    """Let models of transformers have trimmed input embeddings inside the ``with`` block, and whole ones again behind it.

    Args:
        models: encoders or classification models by name.
        views: by the same names, all texts that the model is given inside the block.
    """
    undo = []
    for name, model in models.items():
        used = np.unique(np.concatenate([[view.pad_id for view in views[name]], *(view.ids for view in views[name])]))
        used = used.astype(np.int64)
        whole = model.get_input_embeddings()  # type: ignore[operator]
        if isinstance(whole, nn.Embedding) and len(used) < _WORTH_IT * whole.num_embeddings and _is_plain(model, whole):
            parent, attribute = _place(model, whole)
            small = TrimmedEmbedding(whole, used)
            setattr(parent, attribute, small)
            undo.append((parent, attribute, whole, small, used))
    try:
        yield
    finally:
        for parent, attribute, whole, small, used in undo:
            small.put_back(whole, used)
            setattr(parent, attribute, whole)


def _is_plain(model: nn.Module, whole: nn.Embedding) -> bool:
    """Whether a lookup is all that the weights are used for: not tied to another layer, not renormed, not scaled by counts."""
    owners = [module for module in model.modules() for own in module.parameters(recurse=False) if own is whole.weight]
    options = whole.max_norm is not None or whole.scale_grad_by_freq or whole.sparse
    return owners == [whole] and type(whole) is nn.Embedding and not options


def _place(model: nn.Module, wanted: nn.Module) -> tuple[nn.Module, str]:
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is wanted:
                return parent, name
    raise AssertionError("an input embedding is part of its model")
