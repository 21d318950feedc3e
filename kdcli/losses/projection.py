"""Learnable maps between widths: trained with the student, never saved into it."""

from __future__ import annotations

from torch import nn

from kdcli.models.named_modules import NamedModules


class Projections(NamedModules):
    """All maps of a training by key, so that the terms of a later stage find those that an earlier one has trained.

    In a key a / stands between names, because no name holds one.
    """

    def between(self, key: str, begin: int, end: int) -> nn.Linear:
        """The map of that key, from width ``begin`` to ``end``, without bias; made at the first call.

        It starts as the identity where it can, as an orthogonal map where it cannot. Maps of unlike widths are different ones.
        """
        if key in self:
            found = self[key]
            assert isinstance(found, nn.Linear)
            same = tuple(found.weight.shape) == (end, begin)
            return found if same else self.between(f"{key}/{begin}-{end}", begin, end)
        linear = nn.Linear(begin, end, bias=False)
        if begin == end:
            nn.init.eye_(linear.weight)
        else:
            nn.init.orthogonal_(linear.weight)
        self[key] = linear
        return linear
