"""Values that change over a stage."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schedule import Moment, value_at

Shape = Literal["linear", "cosine", "exponential"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
quick = settings(deadline=None, database=None, max_examples=100)
every_shape = pytest.mark.parametrize("shape", SHAPES)
ends = st.floats(0.01, 100)


def schedule(start: float, to: float, shape: Shape = "linear", **more: object) -> Schedule:
    return Schedule.model_validate({"from": start, "to": to, "shape": shape, **more})


def values(of: Schedule, steps: int) -> list[float]:
    return [value_at(of, Moment(step, steps)) for step in range(steps)]


@pytest.mark.parametrize("number", [0.0, 3, 2.5])
def test_a_number_is_the_same_at_every_moment(number: float) -> None:
    found = [value_at(number, Moment(step, 7, step, 3)) for step in range(9)]
    assert found == [float(number)] * 9
    assert {type(value) for value in found} == {float}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [8.0, 6.5, 5.0, 3.5, 2.0]),
        ("exponential", [8.0, 8 / math.sqrt(2), 4.0, 4 / math.sqrt(2), 2.0]),
        ("cosine", [8.0, 5 + 3 * math.sqrt(0.5), 5.0, 5 - 3 * math.sqrt(0.5), 2.0]),
    ],
)
def test_values_worked_out_by_hand(shape: Shape, expected: list[float]) -> None:
    assert values(schedule(8, 2, shape), 5) == pytest.approx(expected)
    assert values(schedule(2, 8, shape), 5) == pytest.approx(expected[::-1])


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("to", [1.0, 4.0])
def test_a_share_rises_by_equal_parts_to_the_last_value_whatever_the_number_of_epochs(epochs: int, to: float) -> None:
    rising = Schedule.model_validate({"from": "share", "to": to, "every": "epoch"})
    found = [value_at(rising, Moment(epoch * 5, epochs * 5, epoch, epochs)) for epoch in range(epochs)]
    assert found == pytest.approx([to * (epoch + 1) / epochs for epoch in range(epochs)])


def test_a_share_of_nothing_is_nothing() -> None:
    assert Schedule.model_validate({"from": "share", "to": 0}).stays_zero
    assert not Schedule.model_validate({"from": "share", "to": 1}).stays_zero


@every_shape
@quick
@given(start=ends, to=ends, steps=st.integers(2, 50))
def test_it_goes_from_the_first_value_at_the_first_step_to_the_last_at_the_last(
    shape: Shape, start: float, to: float, steps: int
) -> None:
    found = values(schedule(start, to, shape), steps)
    assert (found[0], found[-1]) == pytest.approx((start, to))
    assert found == sorted(found, reverse=to < start) or found == pytest.approx([start] * steps)


@every_shape
@quick
@given(begin=st.integers(0, 9), width=st.integers(1, 10), data=st.data())
def test_it_rests_before_its_begin_and_after_its_end(shape: Shape, begin: int, width: int, data: st.DataObject) -> None:
    end = min(10, begin + width)
    moving, inside = schedule(1, 9, shape, begin=begin / 10, end=end / 10), schedule(1, 9, shape)
    step = data.draw(st.integers(0, 100))
    found = value_at(moving, Moment(step, 101))
    if step <= 10 * begin:
        assert found == pytest.approx(1.0)
    elif step >= 10 * end:
        assert found == pytest.approx(9.0)
    else:
        assert 1 < found < 9
        assert found == pytest.approx(value_at(inside, Moment(step - 10 * begin, 10 * (end - begin) + 1)))


@every_shape
def test_by_epoch_it_changes_between_epochs_alone(shape: Shape) -> None:
    by_epoch, by_step = schedule(1, 9, shape, every="epoch"), schedule(1, 9, shape)
    found = [value_at(by_epoch, Moment(step, 40, step // 10, 4)) for step in range(40)]
    assert found == [value_at(by_step, Moment(step // 10, 4)) for step in range(40)]
    assert len(set(found)) == 4


@every_shape
@pytest.mark.parametrize("every", ["step", "epoch"])
def test_where_there_is_only_one_step_or_epoch_it_has_its_last_value(shape: Shape, every: str) -> None:
    assert value_at(schedule(1, 9, shape, every=every), Moment(0, 1, 0, 1)) == pytest.approx(9.0)


@every_shape
def test_beyond_the_last_step_it_keeps_its_last_value(shape: Shape) -> None:
    assert value_at(schedule(1, 9, shape), Moment(60, 50)) == pytest.approx(9.0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_zero_may_be_an_end(shape: Shape) -> None:
    assert values(schedule(0, 1, shape), 3) == pytest.approx([0, 0.5, 1])
    assert values(schedule(1, 0, shape), 3) == pytest.approx([1, 0.5, 0])


@every_shape
def test_seed_and_stage_change_nothing(shape: Shape) -> None:
    moment = Moment(3, 11)
    of = schedule(1, 9, shape)
    assert value_at(of, replace(moment, seed=7, stage=2)) == value_at(of, moment)


@pytest.mark.parametrize(
    "refused",
    [
        {"from": 0, "to": 1, "shape": "exponential"},
        {"from": 1, "to": 0, "shape": "exponential"},
        {"from": 0, "to": 1, "begin": 0.5, "end": 0.5},
        {"from": 0, "to": 1, "begin": 0.6, "end": 0.5},
        {"from": -1, "to": 1},
        {"from": 0, "to": 1, "end": 1.5},
        {"from": 0, "to": math.inf},
        {"from": 0},
    ],
)
def test_schedules_that_cannot_be_followed_are_refused(refused: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate(refused)
