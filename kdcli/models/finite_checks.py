"""Numbers that are infinite or no numbers at all: where they are, so that nobody makes a score or a checkpoint of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kdcli.errors import RunFailedError

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3


def tensors_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold an infinite value or NaN; whole numbers never do."""
    return [name for name, tensor in tensors if tensor.is_floating_point() and not bool(tensor.isfinite().all())]


def refuse_weights_not_finite(weights: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Stop before weights are written that no training and no prediction can follow from.

    Raises:
        RunFailedError: with the names of those that are not finite.
    """
    broken = tensors_not_finite(weights)
    if broken:
        raise RunFailedError(f"{what}: weights are not finite ({listed(broken)}), so that nothing is written of them")


def listed(names: Sequence[object]) -> str:
    """The first names, and how many there are if there are more."""
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, … {len(names)} in all"
