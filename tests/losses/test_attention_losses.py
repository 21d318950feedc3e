"""Inside the attention: probabilities, scores, and relations of queries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from kdcli.losses.attention import HeadMap
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.attention_mse import AttentionMseTerm
from kdcli.losses.layer_term import LayerTerm
from kdcli.losses.relation_kl import RelationKlTerm
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.losses.relation_kl import Relation
from tests.losses.cases import ATTENTION, ATTENTION_PAIRS, AVERAGED, RELATIONS, TOP_PAIRS, Make
from tests.losses.checks import (
    assert_cuts_change_nothing,
    assert_finite,
    assert_gradient_is_that_of_the_reference,
    assert_padding_changes_nothing,
    assert_value_is_the_reference,
    parts,
    value,
)
from tests.losses.random_samples import LOWEST, SAME_HEADS, TEACHERS, RandomSamples

FORMS = {**{f"attention-{name}": make for name, make in ATTENTION.items()}, **RELATIONS}
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
every_teacher = pytest.mark.parametrize("teacher", TEACHERS)
kl_forms = pytest.mark.parametrize("heads", [{}, AVERAGED, {"bert": {1: 2, 2: 1}, "roberta": {2: 1}}])


@every_form
def test_value_equals_numpy(make: Make) -> None:
    assert_value_is_the_reference(make())


@every_form
def test_gradient_equals_finite_differences(make: Make) -> None:
    assert_gradient_is_that_of_the_reference(make())


@every_form
def test_padding_changes_nothing(make: Make) -> None:
    assert_padding_changes_nothing(make())


@every_form
def test_a_batch_of_eight_equals_its_parts(make: Make) -> None:
    assert_cuts_change_nothing(make())


# Tokens


TERMS: dict[str, Callable[[str], LayerTerm]] = {
    "attention-kl": lambda teacher: AttentionKlTerm({teacher: {1: 1}}),
    "attention-mse": lambda teacher: AttentionMseTerm({teacher: {1: 1}}),
    "relation-kl": lambda teacher: RelationKlTerm({teacher: {1: 1}}),
}
every_term = pytest.mark.parametrize("name", TERMS)


@every_term
def test_units_are_matched_query_tokens_or_cells(name: str) -> None:
    samples = RandomSamples(seed=1, heads=SAME_HEADS)
    for teacher in TEACHERS:
        tokens = [len(samples.counterparts(teacher, row)) for row in range(8)]
        expected = sum(count**2 for count in tokens) if name == "attention-mse" else sum(tokens)
        assert TERMS[name](teacher).count(samples.cut()[0]).tolist() == [expected]


@every_term
def test_a_sample_without_any_counterpart_says_nothing(name: str) -> None:
    samples, term = RandomSamples(4, seed=2, heads=SAME_HEADS), TERMS[name]("roberta")
    samples.runs[2][:, 1] = samples.runs[2][:, 0]
    assert value(term, samples.cut([2])).item() == 0.0
    torch.testing.assert_close(value(term, samples.cut()), value(term, samples.cut([0, 1, 3])))
    assert_finite(term, *samples.cut([2]))


@every_term
def test_a_single_token_with_a_counterpart_is_enough(name: str) -> None:
    samples, term = RandomSamples(4, seed=3, heads=SAME_HEADS), TERMS[name]("roberta")
    for run in samples.runs:
        run[:, 1] = run[:, 0]
        run[1] = 0, 2
    found = value(term, samples.cut())
    assert_finite(term, *samples.cut())
    if name != "attention-mse":
        assert found.item() == pytest.approx(0.0, abs=1e-6)  # a distribution over one token


@pytest.mark.parametrize("kind", [AttentionKlTerm, AttentionMseTerm])
def test_no_gradient_reaches_tokens_without_a_counterpart(kind: type[LayerTerm]) -> None:
    samples, term = RandomSamples(seed=4, heads=SAME_HEADS), kind({"roberta": {1: 1}})
    batch, outputs = samples.cut()
    seen = getattr(outputs[STUDENT], term.kinds[0])[1].requires_grad_()
    value(term, (batch, outputs)).backward()  # type: ignore[no-untyped-call]
    inside = torch.zeros(seen.shape[0], *seen.shape[2:], dtype=torch.bool)
    for row in range(8):
        for place, _ in samples.counterparts("roberta", row):
            inside[row, place, [other for other, _ in samples.counterparts("roberta", row)]] = True
    assert (seen.grad.masked_select(~inside[:, None].expand_as(seen)) == 0).all()
    assert seen.grad.masked_select(inside[:, None].expand_as(seen)).count_nonzero() > 0


@pytest.mark.parametrize("name", ["attention-kl", "relation-kl"])
def test_a_student_that_attends_as_its_teacher_is_no_distance_away_and_feels_no_pull(name: str) -> None:
    samples, term = RandomSamples(seed=5, heads=SAME_HEADS, widths=dict.fromkeys((STUDENT, *TEACHERS), 6)), TERMS[name]("bert")
    for kind in ("attention", "queries", "keys", "values"):
        samples.insides[kind]["bert"][1] = samples.of(kind, STUDENT, 1)
    batch, outputs = samples.cut()
    kind = term.kinds[0]
    seen = getattr(outputs[STUDENT], kind)[1].requires_grad_()
    found = value(term, (batch, outputs))
    assert found.item() == pytest.approx(0.0, abs=1e-6)
    found.backward()  # type: ignore[no-untyped-call]
    pull = seen.grad if kind != "attention" else seen.grad - seen.exp() * seen.grad.sum(-1, keepdim=True)  # along distributions
    assert pull.abs().max() < 1e-6


# Attention that is zero


@every_teacher
@kl_forms
def test_attention_that_the_student_lacks_costs_what_a_billionth_costs(teacher: str, heads: Mapping[str, HeadMap]) -> None:
    samples = RandomSamples(seed=6, heads=SAME_HEADS)
    term = AttentionKlTerm({teacher: {1: 1}}, heads)
    batch, outputs = samples.cut()
    before = value(term, (batch, outputs)).item()
    outputs[STUDENT].attention[1][..., :2] = LOWEST
    found = value(term, (batch, outputs)).item()
    assert before < found < math.log(1e9)
    assert_finite(term, batch, outputs)


@pytest.mark.parametrize("zero", [LOWEST, -3e38, -1e30])
def test_a_certain_teacher_of_a_student_that_looks_elsewhere(zero: float) -> None:
    samples = RandomSamples(1, seed=7, heads=SAME_HEADS)
    batch, outputs = samples.cut()
    for name, place in ((STUDENT, 0), ("bert", 1)):
        outputs[name].attention[1].fill_(zero)
        outputs[name].attention[1][..., place] = 0.0
    term = AttentionKlTerm({"bert": {1: 1}})
    assert value(term, (batch, outputs)).item() == pytest.approx(math.log(1e9), rel=1e-6)
    assert_finite(term, batch, outputs)


def test_attention_to_tokens_that_no_student_token_overlaps_is_left_out() -> None:
    samples = RandomSamples(seed=8, heads=SAME_HEADS)
    for row, run in enumerate(samples.runs):
        run[:] = [(place, place + 1) for place in range(len(run))]
        run[run >= samples.lengths["roberta"][row] - 1] = 0
    term = AttentionKlTerm({"roberta": {1: 1}})
    before = value(term, samples.cut())
    for logs in samples.of("attention", "roberta", 1):
        logs[..., -1] += 1.0  # scaled by the rest's new sum, nothing is left of this
    torch.testing.assert_close(value(term, samples.cut()), before)


# Heads


def permuted(samples: RandomSamples, kind: str, model: str, order: list[int]) -> None:
    for layer, found in samples.insides[kind][model].items():
        samples.insides[kind][model][layer] = [values[order] for values in found]


@pytest.mark.parametrize(("kind", "name"), [(AttentionKlTerm, "attention"), (AttentionMseTerm, "scores")])
def test_heads_are_averaged_in_any_order_and_mapped_by_number(kind: Callable[..., LayerTerm], name: str) -> None:
    samples = RandomSamples(seed=9)
    averaged, mapped = kind(ATTENTION_PAIRS, AVERAGED), kind(ATTENTION_PAIRS, {"bert": {1: 4, 2: 1}, "roberta": {1: 3}})
    moved = kind(ATTENTION_PAIRS, {"bert": {1: 3, 2: 2}, "roberta": {1: 1}})
    before = [parts(term, samples.cut()) for term in (averaged, mapped)]
    permuted(samples, name, "bert", [1, 0, 3, 2])
    permuted(samples, name, "roberta", [2, 1, 0])
    torch.testing.assert_close(parts(averaged, samples.cut()), before[0])
    torch.testing.assert_close(parts(moved, samples.cut()), before[1])
    assert not torch.allclose(parts(mapped, samples.cut()), before[1], rtol=1e-3)


def test_matching_heads_is_mapping_each_to_its_own_number() -> None:
    cut = RandomSamples(seed=10, heads=SAME_HEADS).cut()
    same: dict[str, HeadMap] = {name: {1: 1, 2: 2} for name in TEACHERS}
    for kind in (AttentionKlTerm, AttentionMseTerm):
        assert torch.equal(parts(kind(ATTENTION_PAIRS, same), cut), parts(kind(ATTENTION_PAIRS), cut))


# Relations


def test_relations_are_summed() -> None:
    cut = RandomSamples(seed=11).cut()
    kinds: tuple[Relation, ...] = ("queries", "keys", "values")
    whole = parts(RelationKlTerm(TOP_PAIRS, kinds, 3), cut)
    single = torch.stack([parts(RelationKlTerm(TOP_PAIRS, [kind], 3), cut) for kind in kinds])
    torch.testing.assert_close(whole, single.sum(0))


def test_as_many_relation_heads_as_attention_heads_are_the_attention_s_own() -> None:
    cut = RandomSamples(seed=12, heads=SAME_HEADS).cut()
    torch.testing.assert_close(parts(RelationKlTerm(TOP_PAIRS, relation_heads=2), cut), parts(RelationKlTerm(TOP_PAIRS), cut))


def test_relations_do_not_see_in_which_directions_the_states_lie() -> None:
    samples, term = RandomSamples(seed=13, heads=SAME_HEADS), RelationKlTerm(TOP_PAIRS, ["keys"])
    before = parts(term, samples.cut())
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    for layer, found in samples.insides["keys"][STUDENT].items():
        samples.insides["keys"][STUDENT][layer] = [values @ turn for values in found]
    torch.testing.assert_close(parts(term, samples.cut()), before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("huge", [1e3, 1e4])
def test_relations_of_huge_states_stay_finite(huge: float) -> None:
    batch, outputs = RandomSamples(seed=14, heads=SAME_HEADS).cut()
    for kind in ("queries", "keys", "values"):
        for output in (outputs[STUDENT], outputs["roberta"]):
            for states in getattr(output, kind).values():
                states *= huge
    assert_finite(RelationKlTerm(TOP_PAIRS), batch, outputs)


# Needs


def test_layers_of_one_kind_are_asked_for_and_no_others() -> None:
    for kind, term in (("attention", AttentionKlTerm(ATTENTION_PAIRS)), ("scores", AttentionMseTerm(ATTENTION_PAIRS))):
        assert term.needs() == {
            STUDENT: Wanted.of(kind, [1, 2]),
            "bert": Wanted.of(kind, [2, 4]),
            "roberta": Wanted.of(kind, [1, 3]),
        }
    assert RelationKlTerm(TOP_PAIRS, ["queries", "values"]).needs() == {
        STUDENT: Wanted(queries=frozenset({1, 2}), values=frozenset({1, 2})),
        "bert": Wanted(queries=frozenset({4}), values=frozenset({4})),
        "roberta": Wanted(queries=frozenset({2, 3}), values=frozenset({2, 3})),
    }


def test_scores_of_masked_cells_may_be_anything() -> None:
    samples, term = RandomSamples(seed=15, heads=SAME_HEADS), AttentionMseTerm(ATTENTION_PAIRS)
    batch, outputs = samples.cut()
    before = parts(term, (batch, outputs))
    wild: dict[str, Output] = samples.cut(garbage=1e15)[1]
    assert torch.equal(parts(term, (batch, wild)), before)
    assert_finite(term, batch, wild)
