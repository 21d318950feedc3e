"""The head that co-finetuned teachers share, against a few lines of numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kdcli.models.head import AttentionPooling, SharedHead, make_pooling
from kdcli.recipe.schema import Pooling

Array = NDArray[np.float64]
POOLINGS: tuple[Pooling, ...] = ("attention", "cls", "mean")
LENGTHS = (7, 4, 1)
WIDTH = 6


def states_and_mask(width: int = WIDTH, more_padding: int = 0, filler: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random states of three texts of unlike length, with a constant as padding."""
    length = max(LENGTHS) + more_padding
    states = torch.full((len(LENGTHS), length, width), filler)
    for row, own in enumerate(LENGTHS):
        states[row, :own] = torch.randn(own, width, generator=torch.Generator().manual_seed(row))
    return states, (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).to(torch.int64)


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().astype(np.float64)


def pooled(pooling: nn.Module, states: Array) -> Array:
    """The pooled state of one text without padding [L, D]."""
    if isinstance(pooling, AttentionPooling):
        scores = np.tanh(states @ array(pooling.inner.weight).T + array(pooling.inner.bias)) @ array(pooling.query.weight)[0]
        weights = np.exp(scores) / np.exp(scores).sum()
        return cast(Array, weights @ states)
    return states[0] if type(pooling).__name__ == "ClsPooling" else cast(Array, states.mean(0))


@pytest.mark.parametrize("kind", POOLINGS)
def test_pooling_equals_numpy_and_ignores_padding(kind: Pooling) -> None:
    pooling = make_pooling(kind, WIDTH)
    states, mask = states_and_mask()
    expected = [pooled(pooling, array(states[row, :own])) for row, own in enumerate(LENGTHS)]
    np.testing.assert_allclose(array(pooling(states, mask)), expected, atol=1e-5)


@pytest.mark.parametrize("kind", POOLINGS)
def test_more_padding_changes_nothing(kind: Pooling) -> None:
    pooling = make_pooling(kind, WIDTH)
    wide = pooling(*states_and_mask(more_padding=9, filler=-40.0))
    assert torch.allclose(wide, pooling(*states_and_mask()), atol=1e-6)


def test_the_three_poolings_differ() -> None:
    found = [make_pooling(kind, WIDTH)(*states_and_mask()) for kind in POOLINGS]
    assert not any(torch.allclose(found[one], found[other], atol=1e-3) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("kind", POOLINGS)
def test_every_teacher_feeds_the_same_pooling_and_prediction(kind: Pooling) -> None:
    head = SharedHead({"one": WIDTH, "other": WIDTH}, 3, kind).eval()
    states, mask = states_and_mask()
    logits = head("one", states, mask)
    expected = array(head.pooling(states, mask)) @ array(head.prediction.weight).T + array(head.prediction.bias)
    np.testing.assert_allclose(array(logits), expected, atol=1e-5)
    assert torch.equal(logits, head("other", states, mask))


def test_a_narrower_teacher_is_mapped_to_the_widest_width_by_a_map_of_its_own() -> None:
    head = SharedHead({"wide": WIDTH, "narrow": 4}, 2, "mean").eval()
    assert list(head.inputs["wide"].parameters()) == []
    states, mask = states_and_mask(4)
    inputs: Any = head.inputs["narrow"]
    mapped = states @ inputs.weight.T + inputs.bias
    assert mapped.shape[-1] == WIDTH
    assert torch.allclose(head("narrow", states, mask), head("wide", mapped, mask), atol=1e-6)


def test_dropout_acts_while_training_alone() -> None:
    head = SharedHead({"one": WIDTH}, 2, "cls", dropout=0.5)
    states, mask = states_and_mask()
    assert not torch.equal(head("one", states, mask), head("one", states, mask))
    head.eval()
    assert torch.equal(head("one", states, mask), head("one", states, mask))


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_saved_head_gives_the_same_logits_when_loaded(kind: Pooling, tmp_path: Path) -> None:
    head = SharedHead({"wide": WIDTH, "narrow": 4}, 3, kind).eval()
    head.save(tmp_path, ("a", "b", "c"))
    loaded, labels = SharedHead.load(tmp_path)
    loaded.eval()
    assert labels == ("a", "b", "c")
    for name, width in (("wide", WIDTH), ("narrow", 4)):
        states, mask = states_and_mask(width)
        assert torch.equal(head(name, states, mask), loaded(name, states, mask))
