"""Dropout that draws its numbers four at a time is dropout."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from scipy import stats
from torch import nn

from kdcli.models.dropout import QuickDropout, quick_dropout


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_values_are_dropped_with_the_chance_and_the_others_scaled(chance: float) -> None:
    torch.manual_seed(0)
    count = 400_001
    out = QuickDropout(chance)(torch.ones(count))
    kept = out != 0
    assert torch.allclose(out[kept], torch.tensor(1 / (1 - chance)), rtol=1e-4)
    assert stats.binomtest(int(kept.sum()), count, 1 - chance).pvalue > 1e-3


def test_neighbours_are_drawn_each_for_itself() -> None:
    """Four numbers come from one draw: none of them may tell anything of the others."""
    torch.manual_seed(1)
    kept = (QuickDropout(0.3)(torch.ones(400_000)) != 0).view(-1, 4).numpy()
    for one in range(4):
        for other in range(one):
            counts = [[int(((kept[:, one] == a) & (kept[:, other] == b)).sum()) for a in (False, True)] for b in (False, True)]
            assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_gradient_goes_through_what_was_kept_alone() -> None:
    torch.manual_seed(2)
    states = torch.randn(5, 7, 3, requires_grad=True)
    out = QuickDropout(0.4)(states)
    out.backward(torch.full_like(out, 2.0))
    assert states.grad is not None
    kept = out != 0
    assert torch.allclose(states.grad[kept], torch.tensor(2 / 0.6), rtol=1e-4)
    assert torch.all(states.grad[~kept] == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_shape_stay(dtype: torch.dtype) -> None:
    states = torch.randn(3, 5, dtype=dtype)
    out = QuickDropout(0.2)(states)
    assert (out.dtype, out.shape) == (dtype, states.shape)


def test_what_is_dropped_is_gone_even_if_it_was_not_finite() -> None:
    torch.manual_seed(3)
    out = QuickDropout(0.5)(torch.full((1000,), float("inf")))
    assert set(out.tolist()) == {0.0, float("inf")}


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_all_or_nothing_is_left_to_torch(chance: float) -> None:
    states = torch.randn(10)
    assert torch.equal(QuickDropout(chance)(states), nn.functional.dropout(states, chance))


def test_nothing_is_dropped_when_evaluating() -> None:
    states = torch.randn(10)
    assert torch.equal(QuickDropout(0.5).eval()(states), states)


def test_same_seed_same_numbers() -> None:
    layer, states = QuickDropout(0.5), torch.ones(1000)
    first, second, third = (_seeded(layer, states, seed) for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def _seeded(layer: nn.Module, states: torch.Tensor, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    out: torch.Tensor = layer(states)
    return out


def test_layers_are_quick_inside_the_block_alone() -> None:
    class Own(nn.Dropout):
        pass

    model = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2)), Own(0.3))
    before = [type(layer) for layer in model.modules()]
    with suppress(RuntimeError), quick_dropout([model]):
        inside = [type(layer) for layer in model.modules()]
        raise RuntimeError
    assert inside.count(QuickDropout) == 2
    assert inside[-1] is Own
    assert [type(layer) for layer in model.modules()] == before
