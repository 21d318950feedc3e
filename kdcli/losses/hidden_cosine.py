"""``hidden-cosine``: directions of hidden states."""

from __future__ import annotations

from typing import Self

from torch import Tensor
from torch.nn import functional

from kdcli.losses.hidden import HiddenTerm
from kdcli.losses.setting import Setting
from kdcli.losses.term_classes import computes
from kdcli.recipe.losses.hidden_cosine import HiddenCosine
from kdcli.recipe.term_plan import TermPlan


@computes(HiddenCosine)
class HiddenCosineTerm(HiddenTerm):
    """One minus the cosine between matched hidden states, mean over tokens.

    Of the first token: L_cos of Knowledge Distillation from Internal Representations (Aguilar et al. 2020, eq. 3). Of all
    tokens of the last layer: DistilBERT's (Sanh et al. 2019).
    """

    name = "hidden-cosine"

    @classmethod
    def planned(cls, loss: HiddenCosine, term: TermPlan, setting: Setting) -> Self:
        return cls(**cls.settings(loss, term, setting))

    def distance(self, ours: Tensor, theirs: Tensor) -> Tensor:
        return 1.0 - functional.cosine_similarity(ours, theirs, dim=-1)
