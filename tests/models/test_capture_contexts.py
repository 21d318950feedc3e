"""What a capture does to a model while it lasts, what it leaves behind, and that two of them do not mix up."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from kdcli.models.capture import Found, captured, serves
from kdcli.models.output import KINDS, Wanted
from tests.models.architectures import LAYERS, NAMES, WITH_SCORES, WITHOUT_SCORES, attentive, eager_twin, every, inputs

ALL = range(1, LAYERS + 1)
STUDENT = Wanted(hidden=frozenset({0, 2}), attention=frozenset({1, 2}), values=frozenset({2}))
TEACHER = Wanted(hidden=frozenset({4}), attention=frozenset({2, 4}), scores=frozenset({3}), keys=frozenset({1}))
WITHOUT_ATTENTION = every(["hidden"], range(LAYERS + 1))
PAIRS = [("bert", "roberta"), ("bert", "bert"), ("modernbert", "albert"), ("deberta-v2", "bert")]


class Calls:
    """How often SDPA was called."""

    def __init__(self) -> None:
        self.count = 0

    def during(self, model: Any, wanted: Wanted) -> int:
        before = self.count
        with torch.no_grad(), captured(model, wanted):
            model(**inputs())
        return self.count - before


@pytest.fixture
def sdpa(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """SDPA as it is, and counted."""
    calls, real = Calls(), functional.scaled_dot_product_attention

    def counted(*arguments: Any, **keywords: Any) -> Tensor:
        calls.count += 1
        return real(*arguments, **keywords)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    return calls


@pytest.mark.parametrize("kind", ["attention", "scores"])
@pytest.mark.parametrize("layers", [[1], [2, 4], [*ALL]])
@pytest.mark.parametrize("name", WITH_SCORES)
def test_layers_that_are_not_asked_keep_sdpa(name: str, layers: list[int], kind: str, sdpa: Calls) -> None:
    model = attentive(name)
    assert sdpa.during(model, Wanted()) == LAYERS
    assert sdpa.during(model, Wanted.of(kind, layers)) == LAYERS - len(layers)
    assert sdpa.during(model, Wanted()) == LAYERS


@pytest.mark.parametrize("kind", ["hidden", "queries", "keys", "values"])
@pytest.mark.parametrize("name", WITH_SCORES)
def test_what_sdpa_need_not_compute_differently_keeps_it(name: str, kind: str, sdpa: Calls) -> None:
    assert sdpa.during(attentive(name), Wanted.of(kind, ALL)) == LAYERS


@pytest.mark.parametrize("name", WITHOUT_SCORES)
def test_an_attention_of_its_own_never_was_sdpa(name: str, sdpa: Calls) -> None:
    model = attentive(name)
    assert sdpa.during(model, Wanted()) == sdpa.during(model, Wanted.of("attention", ALL)) == 0


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", WITH_SCORES)
def test_the_attention_implementation_is_restored_after_the_block(name: str, implementation: str) -> None:
    model = attentive(name) if implementation == "sdpa" else eager_twin(attentive(name))
    assert model.config._attn_implementation == implementation
    with captured(model, Wanted.of("attention", [1])):
        assert model.config._attn_implementation != implementation
        model(**inputs())
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("name", WITH_SCORES)
def test_the_attention_implementation_is_restored_after_an_exception(name: str) -> None:
    model = attentive(name)
    before = model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), captured(model, Wanted.of("attention", [1])):
        raise ZeroDivisionError
    assert model.config._attn_implementation == before
    with pytest.raises(IndexError), captured(model, Wanted.of("attention", [1])):
        model(torch.full((1, 3), 10_000))
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_capture_works_after_one_that_failed(name: str) -> None:
    model, broken = attentive(name), attentive(name)
    with pytest.raises(IndexError), captured(broken, Wanted.of("attention", [1])):
        broken(torch.full((1, 3), 10_000))
    assert_same(seen(model, STUDENT, 1), seen(broken, STUDENT, 1))


@pytest.mark.parametrize("wanted", [Wanted(), WITHOUT_ATTENTION], ids=["nothing", "hidden"])
@pytest.mark.parametrize("name", NAMES)
def test_the_attention_implementation_stays_where_no_attention_is_wanted(name: str, wanted: Wanted) -> None:
    model = attentive(name)
    before = model.config._attn_implementation
    with captured(model, wanted):
        assert model.config._attn_implementation == before
        model(**inputs())
        assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", WITHOUT_SCORES)
def test_an_attention_of_its_own_is_read_without_changing_the_implementation(name: str) -> None:
    model = attentive(name)
    before = model.config._attn_implementation
    with captured(model, Wanted.of("attention", ALL)):
        assert model.config._attn_implementation == before


def within(model: Any, wanted: Wanted) -> Wanted:
    """What is wanted, as far as the model shows it."""
    served = serves(model.config)
    return Wanted(**{kind: getattr(wanted, kind) for kind in KINDS if kind in served})


def answer(model: Any, seed: int) -> Tensor:
    with torch.no_grad():
        states: Tensor = model(**inputs(seed)).last_hidden_state
    return states


def seen(model: Any, wanted: Wanted, seed: int) -> Found:
    """What a capture of this model alone shows."""
    with captured(model, wanted) as found:
        answer(model, seed)
    return found


def assert_same(found: Found, expected: Found) -> None:
    assert {kind: sorted(layers) for kind, layers in found.items()} == {
        kind: sorted(layers) for kind, layers in expected.items()
    }
    for kind, layers in expected.items():
        for layer, tensor in layers.items():
            assert torch.equal(found[kind][layer], tensor), (kind, layer)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_teacher_may_be_captured_after_the_student_within_its_block(one: str, other: str) -> None:
    student, teacher = attentive(one), attentive(other)
    ours, theirs = within(student, STUDENT), within(teacher, TEACHER)
    with captured(student, ours) as of_student:
        answer(student, 1)
        with captured(teacher, theirs) as of_teacher:
            answer(teacher, 2)
    assert_same(of_student, seen(student, ours, 1))
    assert_same(of_teacher, seen(teacher, theirs, 2))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_student_may_be_asked_after_the_teachers_block_within_its_own(one: str, other: str) -> None:
    student, teacher = attentive(one), attentive(other)
    ours, theirs = within(student, STUDENT), within(teacher, TEACHER)
    with captured(student, ours) as of_student:
        with captured(teacher, theirs) as of_teacher:
            answer(teacher, 2)
        answer(student, 1)
    assert_same(of_student, seen(student, ours, 1))
    assert_same(of_teacher, seen(teacher, theirs, 2))


@pytest.mark.parametrize("asked", ["student first", "teacher first"])
@pytest.mark.parametrize("entered", ["student first", "teacher first"])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_models_are_captured_at_once_in_any_order(one: str, other: str, entered: str, asked: str) -> None:
    models = {"student": attentive(one), "teacher": attentive(other)}
    wants = {"student": within(models["student"], STUDENT), "teacher": within(models["teacher"], TEACHER)}
    seeds = {"student": 1, "teacher": 2}
    order = {"student first": ["student", "teacher"], "teacher first": ["teacher", "student"]}
    with ExitStack() as stack:
        found = {name: stack.enter_context(captured(models[name], wants[name])) for name in order[entered]}
        for name in order[asked]:
            answer(models[name], seeds[name])
    for name, model in models.items():
        assert_same(found[name], seen(model, wants[name], seeds[name]))


@pytest.mark.parametrize("asked", ["before", "after"])
def test_a_model_that_is_not_captured_answers_within_anothers_block_as_ever(asked: str, sdpa: Calls) -> None:
    student, teacher = attentive("bert"), attentive("roberta")
    expected = answer(teacher, 2)
    with captured(student, STUDENT) as found:
        if asked == "after":
            answer(student, 1)
        before = sdpa.count
        assert torch.equal(answer(teacher, 2), expected)
        assert sdpa.count - before == LAYERS
        if asked == "before":
            answer(student, 1)
    assert_same(found, seen(student, STUDENT, 1))


def test_both_models_get_their_own_implementation_back() -> None:
    student, teacher = attentive("bert"), eager_twin(attentive("roberta"))
    with captured(student, STUDENT), captured(teacher, TEACHER):
        pass
    assert student.config._attn_implementation == "sdpa"
    assert teacher.config._attn_implementation == "eager"


def test_two_captured_models_answer_as_they_do_alone() -> None:
    student, teacher = attentive("bert"), attentive("modernbert")
    real = inputs(1)["attention_mask"].bool()
    expected = answer(student, 1), answer(teacher, 1)
    with captured(student, STUDENT), captured(teacher, TEACHER):
        found = answer(student, 1), answer(teacher, 1)
    for one, other in zip(found, expected, strict=True):
        assert_close(one[real], other[real], rtol=0, atol=1e-5)
