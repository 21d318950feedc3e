"""Debiased CKA and the layer map along which it is highest."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kdcli.evaluation.similarity import best_map, cka, mean_along

Array = NDArray[np.float64]


def normal(count: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


def by_the_formula(ours: Array, theirs: Array) -> float:
    """Song et al. 2012, eq. 5, as it is written."""
    n, one = len(ours), np.ones(len(ours))
    grams = [states @ states.T * (1 - np.eye(n)) for states in (ours, theirs)]

    def hsic(k: Array, m: Array) -> float:
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float((np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))

    k, m = grams
    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


def biased(ours: Array, theirs: Array) -> float:
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    norms = np.linalg.norm(ours.T @ ours) * np.linalg.norm(theirs.T @ theirs)
    return float(np.linalg.norm(theirs.T @ ours) ** 2 / norms)


def of(ours: Array, theirs: Array) -> float:
    return float(cka([ours], [theirs])[0, 0])


@pytest.mark.parametrize("count", [4, 5, 30, 300])
def test_cka_is_that_of_the_formula(count: int) -> None:
    ours = normal(count, 7, 1)
    theirs = np.hstack([ours @ normal(7, 3, 2), normal(count, 4, 3)])
    assert of(ours, theirs) == pytest.approx(by_the_formula(ours, theirs), abs=2e-6)


def test_cka_of_states_with_an_outlying_dimension_is_that_of_the_formula() -> None:
    ours = normal(500, 64, 1) + 30.0
    ours[:, 3] = 400.0 + 50.0 * ours[:, 3]
    theirs = np.hstack([ours[:, :32] @ normal(32, 16, 2), 5 * normal(500, 8, 3)])
    assert of(ours.astype(np.float32), theirs.astype(np.float32)) == pytest.approx(by_the_formula(ours, theirs), abs=2e-5)


def test_cka_with_itself_is_one() -> None:
    assert of(normal(100, 12, 1), normal(100, 12, 1)) == pytest.approx(1.0, abs=1e-6)
    assert of(normal(100, 12, 1), normal(100, 12, 1)) <= 1.0


@pytest.mark.parametrize(
    "change",
    [
        lambda states: states @ np.linalg.qr(normal(12, 12, 5))[0],
        lambda states: states + 100.0,
        lambda states: 1e-4 * states,
        lambda states: 1e6 * states,
        lambda states: np.hstack([states, np.zeros((len(states), 5))]),
    ],
    ids=["rotation", "shift", "smaller", "larger", "more-dimensions"],
)
def test_cka_does_not_see(change: Callable[[Array], Array]) -> None:
    ours = normal(100, 12, 1)
    theirs = np.tanh(ours) + normal(100, 12, 2)
    assert of(ours, change(theirs)) == pytest.approx(of(ours, theirs), abs=1e-5)
    assert of(change(ours), theirs) == pytest.approx(of(ours, theirs), abs=1e-5)


def test_unrelated_states_have_a_cka_of_about_zero_even_when_they_are_as_wide_as_there_are_tokens() -> None:
    ours, theirs = normal(400, 380, 1), normal(400, 380, 2)
    assert biased(ours, theirs) > 0.4
    assert abs(of(ours, theirs)) < 0.02


def test_cka_is_unbiased_over_many_draws() -> None:
    found = [of(normal(20, 15, 2 * seed), normal(20, 15, 2 * seed + 1)) for seed in range(300)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_states_that_do_not_vary_give_zero(value: float) -> None:
    constant = np.full((50, 8), value, dtype=np.float32)
    assert cka([constant, normal(50, 8, 1)], [constant, normal(50, 8, 1)]).tolist() == [[0, 0], [0, pytest.approx(1)]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_tokens_give_zero(count: int) -> None:
    assert of(normal(count, 4, 1), normal(count, 4, 1)) == 0


def test_every_pair_of_layers_is_compared() -> None:
    ours = [normal(60, width, width) for width in (3, 5)]
    theirs = [normal(60, 4, 9), ours[1], ours[0] @ normal(3, 8, 4)]
    found = cka(ours, theirs)
    assert found.shape == (2, 3)
    wanted = [[by_the_formula(one, other) for other in theirs] for one in ours]
    np.testing.assert_allclose(found, wanted, atol=2e-6)


# Layer maps


def all_maps(depth: int, deepest: int) -> list[dict[int, int]]:
    rising = combinations if depth <= deepest else combinations_with_replacement
    return [dict(enumerate(chosen, 1)) for chosen in rising(range(1, deepest + 1), depth)]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 10_000), st.sampled_from([0, 1, 8]))
def test_best_map_is_the_best_of_all_maps(depth: int, deepest: int, seed: int, digits: int) -> None:
    """Few digits make ties."""
    similarity = np.random.default_rng(seed).normal(size=(depth + 1, deepest + 1)).round(digits)
    maps = all_maps(depth, deepest)
    found = best_map(similarity)
    assert found in maps
    assert mean_along(similarity, found) == pytest.approx(max(mean_along(similarity, pairs) for pairs in maps))


def test_of_equal_maps_the_lowest_is_taken() -> None:
    assert best_map(np.zeros((4, 7))) == {1: 1, 2: 2, 3: 3}
    assert best_map(np.ones((4, 3))) == {1: 1, 2: 1, 3: 1}


def test_best_map_leaves_the_embeddings_out() -> None:
    similarity = np.zeros((3, 4))
    similarity[0], similarity[:, 0] = 1, 1
    similarity[1, 2] = similarity[2, 3] = 0.5
    assert best_map(similarity) == {1: 2, 2: 3}


def test_mean_along_takes_the_pairs_of_the_map_alone() -> None:
    assert mean_along(np.arange(12.0).reshape(3, 4), {0: 0, 2: 3}) == 5.5
