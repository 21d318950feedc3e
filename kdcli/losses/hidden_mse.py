"""``hidden-mse``: hidden states."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from kdcli.losses.hidden import HiddenTerm
from kdcli.losses.setting import Setting
from kdcli.losses.term_classes import computes
from kdcli.recipe.losses.hidden_mse import HiddenMse
from kdcli.recipe.term_plan import TermPlan


@computes(HiddenMse)
class HiddenMseTerm(HiddenTerm):
    """Mean squared error between matched hidden states, mean over tokens and width.

    L_hid = Σ_i Σ_j MSE(H^S_j, W_ij · P_i · H^i_m(j)) (MT-BERT, eq. 4), P_i the alignment and W a learnable map without bias.
    W on the teacher's side can shrink both sides to nothing; ``projected-std`` in the log shows it. With ``normalise`` and the
    first token it is the loss of Patient KD (Sun et al. 2019, eq. 7), whose β supposes the mean over the width. FitNets' hint
    loss (Romero et al. 2015, eq. 3) and TinyBERT's (Jiao et al. 2020, eqs. 8 and 9) are this one with a map on the student's
    side.

    Args:
        settings, more: as in :class:`HiddenTerm`.
        normalise: divide each state by its length first.
    """

    name = "hidden-mse"

    def __init__(self, *settings: Any, normalise: bool = False, **more: Any) -> None:
        super().__init__(*settings, **more)
        self.normalise = normalise

    @classmethod
    def planned(cls, loss: HiddenMse, term: TermPlan, setting: Setting) -> Self:
        return cls(**cls.settings(loss, term, setting), normalise=loss.normalise)

    def total(self, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        if self.normalise:
            ours, theirs = functional.normalize(ours, dim=-1), functional.normalize(theirs, dim=-1)
        return squared_distance(ours, theirs, mask) / ours.shape[-1]


class _SquaredDistance(torch.autograd.Function):
    """Σ (a − b)² over the rows of a mask; remembers the masked difference alone, which is half of the gradient."""

    @staticmethod
    def forward(ctx: Any, ours: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
        difference = ours - theirs
        if mask is not None:
            difference.masked_fill_(~mask[..., None], 0.0)
        ctx.save_for_backward(difference)
        flat = difference.flatten()
        return torch.dot(flat, flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (difference,) = ctx.saved_tensors
        of_ours, of_theirs, _ = ctx.needs_input_grad
        slope = difference * (2.0 * gradient)
        return slope if of_ours else None, -slope if of_theirs else None, None


def squared_distance(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Σ (a − b)² (scalar) between states [..., D] of the same shape, over the rows that ``mask`` [...] holds, or over all."""
    total: Tensor = _SquaredDistance.apply(ours, theirs, mask)  # type: ignore[no-untyped-call]
    return total
