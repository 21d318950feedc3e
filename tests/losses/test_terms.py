"""What holds for every loss term in every form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.attention_mse import AttentionMseTerm
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_cosine import HiddenCosineTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.logits_mse import LogitsMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.relation_kl import RelationKlTerm
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Reduction, Term
from kdcli.models.output import KINDS, Output, Wanted
from kdcli.models.student import STUDENT
from kdcli.recipe.schedule import Moment
from tests.losses.cases import ALL, CHANCES, Make, changing
from tests.losses.checks import assert_finite, assert_needs_are_what_is_used, value
from tests.losses.random_samples import SAME_HEADS, SAME_WIDTHS, TEACHERS, THREE, RandomSamples

every_term = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


@every_term
def test_needs_name_exactly_the_models_and_layers_that_are_used(make: Make) -> None:
    assert_needs_are_what_is_used(make())


EVERY_MOMENT = [Moment(step, 8, step // 2, 4, seed, stage) for seed in range(3) for stage in range(2) for step in range(8)]


@every_term
def test_what_may_be_needed_covers_what_every_step_needs_and_names_nothing_more(make: Make) -> None:
    """Whatever is drawn; over many steps everything that may be needed is needed once."""
    term = make().term
    may = term.may_need()
    seen: dict[str, Wanted] = {}
    for moment in EVERY_MOMENT:
        term.begin(moment)
        assert term.may_need() == may
        for name, wanted in term.needs().items():
            assert wanted | may[name] == may[name]
            seen[name] = seen.get(name, Wanted()) | wanted
    assert seen == may


def test_terms_that_draw_may_need_more_than_they_need() -> None:
    """So that the test above looks at something."""
    drawing = {name for name, make in ALL.items() if make().term.may_need() != make().term.needs()}
    assert drawing == {name for name in ALL if "drawn" in name or name.startswith("random-layers: ")}


@every_term
def test_projections_live_in_the_bank_and_not_in_the_term(make: Make) -> None:
    case = make()
    assert not list(case.term.parameters())
    assert not list(case.term.buffers())
    assert not case.term.state_dict()


@every_term
def test_totals_and_counts_are_fp32_numbers_by_part(make: Make) -> None:
    case = make()
    batch, outputs = case.samples.cut()
    for figures in (case.term(batch, outputs), case.term.count(batch)):
        assert figures.shape == (case.term.parts,)
        assert figures.dtype == torch.float32


@every_term
def test_value_and_gradient_stay_finite_where_the_models_answer_in_extremes(make: Make) -> None:
    case = make()
    assert_finite(case.term, *case.samples.times(1e4).cut())
    for parameter in case.bank.parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


@every_term
def test_half_precision_answers_are_compared_in_fp32(make: Make) -> None:
    case = make()
    batch, outputs = case.samples.cut()
    rounded = {name: halved(output) for name, output in outputs.items()}
    whole = {name: halved(output, back=True) for name, output in outputs.items()}
    assert torch.equal(case.term(batch, rounded), case.term(batch, whole))


def halved(output: Output, back: bool = False) -> Output:
    """In bf16, all but the attention, which is captured in fp32; ``back`` in fp32 again."""
    kinds = [kind for kind in KINDS if kind != "attention"]
    shown = {kind: {layer: states.bfloat16() for layer, states in getattr(output, kind).items()} for kind in kinds}
    if back:
        shown = {kind: {layer: states.float() for layer, states in found.items()} for kind, found in shown.items()}
    logits = output.logits.bfloat16()
    return Output(logits.float() if back else logits, attention=output.attention, **shown)


@every_term
def test_terms_that_do_not_look_at_labels_do_without_them(make: Make) -> None:
    case = make()
    batch, outputs = case.samples.cut()
    assert batch.targets is not None
    said = case.term(batch, outputs)
    if torch.equal(case.term(replace(batch, targets=batch.targets.roll(1)), outputs), said):
        assert torch.equal(case.term(replace(batch, targets=None), outputs), said)


# The scale


ONE = {"bert": {1: 1}}
LAYERED = {"bert": {1: 2, 2: 4}, "roberta": {1: 1, 2: 3, 3: 3}}
SCALES: dict[str, tuple[Callable[[], Term], Callable[[], Term], float]] = {
    "hard-labels": (lambda: HardLabelsTerm(THREE), lambda: HardLabelsTerm(["bert"]), 3),
    "soft-labels": (lambda: SoftLabelsTerm(THREE), lambda: SoftLabelsTerm(["bert"]), 1),
    "soft-labels-sum": (lambda: SoftLabelsTerm(THREE, teacher_reduction="sum"), lambda: SoftLabelsTerm(["bert"]), 3),
    "soft-labels-drawn": (
        lambda: SoftLabelsTerm(THREE, chances=CHANCES, teacher_reduction="sum"),
        lambda: SoftLabelsTerm(["bert"]),
        1,
    ),
    "logits-mse": (lambda: LogitsMseTerm(THREE), lambda: LogitsMseTerm(["bert"]), 1),
    "logits-mse-sum": (lambda: LogitsMseTerm(THREE, teacher_reduction="sum"), lambda: LogitsMseTerm(["bert"]), 3),
    "hidden-mse": (lambda: HiddenMseTerm(LAYERED, 6, SAME_WIDTHS), lambda: HiddenMseTerm(ONE, 6, SAME_WIDTHS), 2.5),
    "hidden-mse-sum": (
        lambda: HiddenMseTerm(LAYERED, 6, SAME_WIDTHS, teacher_reduction="sum"),
        lambda: HiddenMseTerm(ONE, 6, SAME_WIDTHS),
        5,
    ),
    "hidden-cosine-mean": (
        lambda: HiddenCosineTerm(LAYERED, 6, SAME_WIDTHS, layer_reduction="mean"),
        lambda: HiddenCosineTerm(ONE, 6, SAME_WIDTHS),
        1,
    ),
    "attention-kl": (lambda: AttentionKlTerm(LAYERED), lambda: AttentionKlTerm(ONE), 2.5),
    "attention-mse-sum-of-means": (lambda: AttentionMseTerm(LAYERED, {}, "mean", "sum"), lambda: AttentionMseTerm(ONE), 2),
    "relation-kl": (lambda: RelationKlTerm(LAYERED), lambda: RelationKlTerm(ONE, ["keys"]), 7.5),
    "relation-kl-mean": (
        lambda: RelationKlTerm(LAYERED, ["keys", "values"], layer_reduction="mean"),
        lambda: RelationKlTerm(ONE, ["keys"]),
        2,
    ),
    "relational-distances": (
        lambda: RelationalTerm(LAYERED, distance_weight=3.0, angle_weight=0.0),
        lambda: RelationalTerm(ONE, distance_weight=1.0, angle_weight=0.0),
        7.5,
    ),
    "relational-angles": (
        lambda: RelationalTerm(LAYERED, distance_weight=0.0, angle_weight=2.0, layer_reduction="mean", teacher_reduction="sum"),
        lambda: RelationalTerm(ONE, distance_weight=0.0, angle_weight=1.0),
        4,
    ),
    "random-layers": (lambda: random_layers(TEACHERS), lambda: random_layers(["bert"]), 1),
    "random-layers-sum": (lambda: random_layers(TEACHERS, "sum"), lambda: random_layers(["bert"]), 2),
}


def random_layers(teachers: Sequence[str], reduction: Reduction = "mean") -> RandomLayersTerm:
    """Whose maps are the identity."""
    return RandomLayersTerm(4, 6, dict.fromkeys(teachers, 4), SAME_WIDTHS, width=6, teacher_reduction=reduction)


def alike() -> RandomSamples:
    """Samples of which every comparison has the same value: all layers, all relations and all teachers are the same."""
    samples = RandomSamples(seed=21, widths=SAME_WIDTHS, heads=SAME_HEADS, layers=dict.fromkeys((STUDENT, *TEACHERS), 4))
    samples.lengths["roberta"] = samples.lengths["bert"]
    for run in samples.runs:
        run[:] = [(place, place + 1) for place in range(len(run))]
    for kind, models in samples.insides.items():
        source = samples.insides["keys" if kind in ("queries", "values") else kind]
        for name in models:
            first = source[STUDENT if name == STUDENT else "bert"][1]
            models[name] = dict.fromkeys(models[name], first)
    for name in THREE:
        samples.logits[name] = samples.logits["bert"]
    return samples


@pytest.mark.parametrize("name", SCALES)
def test_the_scale_is_the_value_where_every_comparison_says_one(name: str) -> None:
    make_many, make_one, scale = SCALES[name]
    many, one = make_many(), make_one()
    for term in (many, one):
        term.begin(Moment())
    assert one.scale == 1.0
    assert many.scale == pytest.approx(scale)
    cut = alike().cut()
    assert value(many, cut).item() == pytest.approx(scale * value(one, cut).item(), rel=1e-5)
    assert value(one, cut).item() > 1e-3


def test_distances_and_angles_share_one_scale() -> None:
    assert RelationalTerm(ONE, distance_weight=1.5, angle_weight=2.0).scale == 3.5


# Names, weights, moments


def test_a_term_is_called_as_its_loss_unless_it_is_given_a_name() -> None:
    assert [make().term.name for make in (ALL["labels: hard"], ALL["hidden: cosine-cls-as-they-are"])] == [
        "hard-labels",
        "hidden-cosine",
    ]
    assert SoftLabelsTerm(TEACHERS, name="from-teachers").name == "from-teachers"
    assert RelationKlTerm(ONE, name="minilm").name == "minilm"
    assert SoftLabelsTerm(TEACHERS).name == "soft-labels"


def test_the_weight_is_a_number_or_follows_a_schedule_and_is_not_in_the_totals() -> None:
    cut = RandomSamples().cut()
    steady, rising = HardLabelsTerm(weight=0.3), HardLabelsTerm(weight=changing(0, 1))
    for step, expected in enumerate([0.0, 0.25, 0.5, 0.75, 1.0]):
        for term in (steady, rising):
            term.begin(Moment(step, 5))
        assert steady.at_moment(steady.weight) == 0.3
        assert rising.at_moment(rising.weight) == expected
        assert torch.equal(rising(*cut), HardLabelsTerm()(*cut))


def test_only_terms_that_compare_samples_keep_them_together() -> None:
    together = {name for name, make in ALL.items() if make().term.group != 1}
    assert together == {name for name in ALL if name.startswith("relational: ")}


# Projections


def test_the_same_key_is_the_same_map_and_another_key_another_one() -> None:
    bank = Projections()
    first = bank.between("a", 3, 5)
    assert bank.between("a", 3, 5) is first
    assert bank.between("b", 3, 5) is not first
    assert list(bank) == ["a", "b"]
    assert [name for name, _ in bank.named_parameters()] == ["a.weight", "b.weight"]


@pytest.mark.parametrize(("begin", "end"), [(4, 4), (3, 5), (5, 3)])
def test_maps_start_as_the_identity_where_widths_agree_and_orthogonal_where_they_do_not(begin: int, end: int) -> None:
    linear = Projections().between("a", begin, end)
    assert linear.bias is None
    weight = linear.weight.detach()
    assert weight.shape == (end, begin)
    small = weight @ weight.T if end <= begin else weight.T @ weight
    torch.testing.assert_close(small, torch.eye(min(begin, end)))
    if begin == end:
        assert torch.equal(weight, torch.eye(begin))


def test_maps_are_trained() -> None:
    assert Projections().between("a", 3, 3).weight.requires_grad
