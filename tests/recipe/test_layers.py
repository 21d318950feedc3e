"""Layer maps against values worked out by hand, and the rules that hold for all depths."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kdcli.recipe.layers import LayerMapError, named_map, resolve
from kdcli.recipe.schema import NamedLayerMap

NAMES: list[NamedLayerMap] = ["uniform", "first", "last"]
depths = st.tuples(st.integers(1, 48), st.integers(1, 48)).map(sorted)
quick = settings(deadline=None, database=None, max_examples=150)


@pytest.mark.parametrize(
    ("name", "student", "teacher", "pairs"),
    [
        ("uniform", 4, 12, {1: 3, 2: 6, 3: 9, 4: 12}),
        ("uniform", 3, 12, {1: 4, 2: 8, 3: 12}),
        ("uniform", 4, 6, {1: 2, 2: 3, 3: 5, 4: 6}),  # 1.5 and 4.5 round up
        ("uniform", 5, 12, {1: 2, 2: 5, 3: 7, 4: 10, 5: 12}),  # 2.4, 4.8, 7.2, 9.6
        ("uniform", 1, 24, {1: 24}),
        ("uniform", 6, 6, {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}),
        ("first", 3, 12, {1: 1, 2: 2, 3: 3}),
        ("last", 3, 12, {1: 10, 2: 11, 3: 12}),
        ("last", 4, 4, {1: 1, 2: 2, 3: 3, 4: 4}),
    ],
)
def test_named_map_is_what_a_hand_computes(name: NamedLayerMap, student: int, teacher: int, pairs: dict[int, int]) -> None:
    assert named_map(name, student, teacher) == pairs
    assert resolve(name, student, teacher) == pairs


@quick
@given(sizes=depths, name=st.sampled_from(NAMES))
def test_named_map_has_every_student_layer_and_rises_within_the_teacher(sizes: list[int], name: NamedLayerMap) -> None:
    student, teacher = sizes
    pairs = named_map(name, student, teacher)
    assert list(pairs) == list(range(1, student + 1))
    there = list(pairs.values())
    assert all(low < high for low, high in itertools.pairwise(there))
    assert there[0] >= 1
    assert there[-1] <= teacher


@quick
@given(sizes=depths)
def test_uniform_and_last_let_the_last_layers_meet(sizes: list[int]) -> None:
    student, teacher = sizes
    assert named_map("uniform", student, teacher)[student] == teacher
    assert named_map("last", student, teacher)[student] == teacher


@quick
@given(sizes=depths)
def test_uniform_is_the_nearest_layer_in_exact_arithmetic(sizes: list[int]) -> None:
    student, teacher = sizes
    for row, layer in named_map("uniform", student, teacher).items():
        assert layer == floor(Fraction(row * teacher, student) + Fraction(1, 2))


@pytest.mark.parametrize("name", NAMES)
def test_student_deeper_than_the_teacher_has_no_named_map(name: NamedLayerMap) -> None:
    with pytest.raises(LayerMapError, match="at least as deep as the student") as caught:
        named_map(name, 7, 6)
    assert "at most 6 student layers" in caught.value.expected
    assert "--student 6L" in caught.value.remedy


@quick
@given(sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)), data=st.data())
def test_explicit_map_within_both_depths_is_taken_sorted(sizes: tuple[int, int], data: st.DataObject) -> None:
    student, teacher = sizes
    pairs = data.draw(st.dictionaries(st.integers(0, student), st.integers(0, teacher), min_size=1))
    resolved = resolve(pairs, student, teacher)
    assert resolved == pairs
    assert list(resolved) == sorted(pairs)


@quick
@given(row=st.integers(-3, 9), layer=st.integers(-3, 20))
def test_explicit_map_outside_a_depth_is_refused(row: int, layer: int) -> None:
    assume(not (0 <= row <= 4 and 0 <= layer <= 12))
    with pytest.raises(LayerMapError, match="does not exist"):
        resolve({row: layer}, 4, 12)


def test_refusal_names_the_side_the_depth_and_a_map_that_fits() -> None:
    with pytest.raises(LayerMapError, match=r"^teacher layer 14 does not exist$") as caught:
        resolve({4: 14}, 4, 12)
    assert caught.value.expected == "0..12 (the teacher has 12 layers; 0 is the embeddings)"
    assert caught.value.remedy == "layers: uniform   → {1: 3, 2: 6, 3: 9, 4: 12}"
    with pytest.raises(LayerMapError, match=r"^student layer 5 does not exist$") as caught:
        resolve({5: 1}, 4, 12)
    assert caught.value.expected.startswith("0..4 ")


def test_refusal_for_a_student_deeper_than_the_teacher_offers_no_named_map() -> None:
    with pytest.raises(LayerMapError, match="teacher layer 3") as caught:
        resolve({1: 3}, 4, 2)
    assert caught.value.remedy == ""


def test_deeper_student_may_have_an_explicit_map() -> None:
    assert resolve({4: 2, 0: 0}, 4, 2) == {0: 0, 4: 2}
