"""Layer maps against values worked out by hand, and the rules that hold for all depths."""

from __future__ import annotations

import itertools
from fractions import Fraction
from math import floor
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kdcli.recipe.layer_maps import LayerMapError, NamedLayerMap, named_map, resolve

NAMES: tuple[NamedLayerMap, ...] = get_args(NamedLayerMap)
ONE_TO_ONE: list[NamedLayerMap] = ["uniform", "first", "last"]
WITHOUT_THE_TOP: list[NamedLayerMap] = ["skip", "last-intermediate"]
OF_ANY_DEPTH: list[NamedLayerMap] = ["middle", "top", "embeddings"]
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
        ("last", 1, 24, {1: 24}),
        ("skip", 6, 12, {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}),  # Patient KD's PKD-Skip
        ("skip", 4, 6, {1: 2, 2: 3, 3: 5}),
        ("skip", 2, 24, {1: 12}),
        ("last-intermediate", 6, 12, {1: 7, 2: 8, 3: 9, 4: 10, 5: 11}),  # Patient KD's PKD-Last
        ("last-intermediate", 4, 6, {1: 3, 2: 4, 3: 5}),
        ("last-intermediate", 2, 2, {1: 1}),
        ("middle", 6, 12, {3: 6}),
        ("middle", 5, 7, {2: 3}),
        ("middle", 1, 1, {1: 1}),
        ("middle", 1, 12, {1: 6}),
        ("middle", 12, 4, {6: 2}),
        ("top", 4, 12, {4: 12}),
        ("top", 1, 1, {1: 1}),
        ("top", 12, 4, {12: 4}),
        ("embeddings", 4, 12, {0: 0}),
        ("embeddings", 12, 4, {0: 0}),
    ],
)
def test_named_map_is_what_a_hand_computes(name: NamedLayerMap, student: int, teacher: int, pairs: dict[int, int]) -> None:
    assert named_map(name, student, teacher) == pairs
    assert resolve(name, student, teacher) == pairs


def test_every_name_is_worked_out_by_hand() -> None:
    assert set(NAMES) == {*ONE_TO_ONE, *WITHOUT_THE_TOP, *OF_ANY_DEPTH}


@quick
@given(sizes=depths, name=st.sampled_from(ONE_TO_ONE))
def test_one_to_one_map_has_every_student_layer_and_rises_within_the_teacher(sizes: list[int], name: NamedLayerMap) -> None:
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


@quick
@given(sizes=depths)
def test_maps_without_the_top_are_those_with_it_less_the_top_and_one_lower(sizes: list[int]) -> None:
    student, teacher = sizes
    assume(student > 1)
    whole = named_map("uniform", student, teacher)
    assert named_map("skip", student, teacher) == {row: whole[row] for row in range(1, student)}
    last = named_map("last-intermediate", student, teacher)
    assert list(last) == list(range(1, student))
    assert list(last.values()) == list(range(teacher - student + 1, teacher))


@quick
@given(student=st.integers(1, 48), teacher=st.integers(1, 48), name=st.sampled_from(OF_ANY_DEPTH))
def test_maps_of_one_pair_fit_every_depth(student: int, teacher: int, name: NamedLayerMap) -> None:
    ((row, layer),) = named_map(name, student, teacher).items()
    assert 0 <= row <= student
    assert 0 <= layer <= teacher
    assert (row == 0) == (layer == 0) == (name == "embeddings")


@pytest.mark.parametrize("name", WITHOUT_THE_TOP)
def test_student_of_one_layer_has_nothing_without_its_top(name: NamedLayerMap) -> None:
    with pytest.raises(LayerMapError, match="the student has no other") as caught:
        named_map(name, 1, 12)
    assert "two layers or more" in caught.value.expected
    assert caught.value.remedy == "layers: uniform"


@pytest.mark.parametrize("name", ONE_TO_ONE + WITHOUT_THE_TOP)
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


def test_many_student_layers_may_have_one_teacher_layer_in_any_order() -> None:
    assert resolve({3: 5, 1: 5, 2: 1}, 4, 12) == {1: 5, 2: 1, 3: 5}


def test_embeddings_may_meet_a_block_on_either_side() -> None:
    assert resolve({0: 3}, 4, 12) == {0: 3}
    assert resolve({2: 0}, 4, 12) == {2: 0}
