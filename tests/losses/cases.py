"""Every loss term in every form, with what it has to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from kdcli.losses.attention import HeadMap
from kdcli.losses.attention_kl import AttentionKlTerm
from kdcli.losses.attention_mse import AttentionMseTerm
from kdcli.losses.divergences import DIVERGENCES
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.hidden_cosine import HiddenCosineTerm
from kdcli.losses.hidden_mse import HiddenMseTerm
from kdcli.losses.logits_mse import LogitsMseTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.relation_kl import RelationKlTerm
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.soft_labels import SoftLabelsTerm
from kdcli.losses.term import Reduction
from kdcli.models.student import STUDENT
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.losses.projection import Side, Tokens
from kdcli.recipe.losses.relation_kl import Relation
from kdcli.recipe.schedule import Moment
from tests.losses import reference
from tests.losses.checks import Case, randomised
from tests.losses.random_samples import HEADS, LAYERS, SAME_HEADS, SAME_WIDTHS, TEACHERS, THREE, WIDTHS, Array, RandomSamples
from tests.losses.reference import Matrices

Make = Callable[[], Case]
SIZES = {"bert": 110, "roberta": 125, "deberta": 44}
CHANCES = {"bert": 0.2, "roberta": 0.5, "deberta": 0.3}
HALFWAY = Moment(step=50, steps=101, epoch=1, epochs=3, seed=5)
PAIRS = {"bert": {1: 2, 2: 4}, "roberta": {0: 0, 1: 1, 2: 3}}
ATTENTION_PAIRS = {"bert": {1: 2, 2: 4}, "roberta": {1: 1, 2: 3}}
TOP_PAIRS = {"bert": {2: 4}, "roberta": {1: 2, 2: 3}}
DEPTHS = {STUDENT: 3, "bert": 6, "roberta": 5}


def changing(start: float, to: float, **more: object) -> Schedule:
    return Schedule.model_validate({"from": start, "to": to, **more})


# Labels


def hard(models: Sequence[str] = (STUDENT,), unlabelled: Sequence[int] = ()) -> Case:
    samples = RandomSamples(seed=11, unlabelled=unlabelled)
    return Case(HardLabelsTerm(models), samples, lambda moved, _: reference.hard_labels(moved, models))


def soft(
    teachers: Sequence[str] = TEACHERS,
    temperature: float | Schedule = 1.0,
    at: float = 1.0,
    squared: bool = False,
    divergence: str = "cross-entropy",
    weighting: reference.Weighting = "uniform",
    normalise: bool = False,
    scale: str = "none",
    min_uncertainty: float = 0.0,
    chances: Mapping[str, float] | None = None,
    reduction: Reduction = "mean",
    out_of_fold: Sequence[str] = (),
    unlabelled: Sequence[int] = (),
    unlabelled_weighting: str | None = None,
    unlabelled_scale: str | None = None,
) -> Case:
    """Args:
    at: the temperature halfway.
    """
    samples = RandomSamples(seed=12, out_of_fold=out_of_fold, unlabelled=unlabelled)
    term = SoftLabelsTerm(
        teachers,
        temperature,
        squared,
        divergence,
        weighting,
        normalise,
        scale,
        min_uncertainty,
        chances,
        {name: SIZES[name] for name in teachers},
        reduction,
        unlabelled_weighting=unlabelled_weighting,
        unlabelled_scale=unlabelled_scale,
    )
    term.begin(HALFWAY)
    asked = list(teachers) if chances is None else [name for name in term.needs() if name != STUDENT]
    weights = reference.teacher_weights(samples, asked, weighting, SIZES, normalise, scale, min_uncertainty)
    if len(unlabelled):
        without = copy(samples)
        without.out_of_fold = {}  # nobody has been asked about these out of fold
        other = (unlabelled_weighting or weighting, SIZES, normalise, unlabelled_scale or scale, min_uncertainty)
        weights[:, list(unlabelled)] = reference.teacher_weights(without, asked, *other)[:, list(unlabelled)]
    factor = (at**2 if squared else 1.0) / (len(asked) if reduction == "mean" else 1)

    def parts(moved: RandomSamples, _: Matrices) -> Array:
        values = dict(zip(asked, reference.soft_labels(moved, asked, weights, at, divergence), strict=True))
        found: Array = factor * np.array([values.get(name, 0.0) for name in teachers])
        return found

    return Case(term, samples, parts)


def logits_mse(factor: float | Schedule = 1.0, at: float = 1.0, reduction: Reduction = "mean") -> Case:
    term = LogitsMseTerm(TEACHERS, factor, reduction)
    term.begin(HALFWAY)
    share = 1 / len(TEACHERS) if reduction == "mean" else 1.0
    return Case(term, RandomSamples(seed=13), lambda moved, _: share * reference.logits_mse(moved, TEACHERS, at))


LABELS: dict[str, Make] = {
    "hard": hard,
    "hard-of-the-teachers": partial(hard, TEACHERS),
    "hard-with-unlabelled": partial(hard, unlabelled=[0, 5, 6]),
    **{f"soft-{name}": partial(soft, temperature=2.0, at=2.0, divergence=name) for name in DIVERGENCES},
    "soft-by-inverse-error": partial(soft, weighting="inverse-error"),
    "soft-by-softmax-error": partial(soft, weighting="softmax-error", temperature=1.5, at=1.5),
    "soft-by-confidence": partial(soft, weighting="confidence"),
    "soft-by-agreement": partial(soft, THREE, weighting="agreement"),
    "soft-by-uncertainty-of-two": partial(soft, weighting="uncertainty"),
    "soft-by-uncertainty-of-three": partial(soft, THREE, weighting="uncertainty"),
    "soft-fixed": partial(soft, weighting={"bert": 0.3, "roberta": 1.9}),
    "soft-normalised": partial(soft, THREE, weighting="inverse-error", normalise=True),
    "soft-times-correctness": partial(soft, weighting="confidence", scale="correctness"),
    "soft-times-agreement": partial(soft, THREE, scale="agreement"),
    "soft-times-disagreement": partial(soft, THREE, scale="disagreement"),
    "soft-of-one-times-disagreement": partial(soft, ["bert"], scale="disagreement"),
    "soft-with-unlabelled": partial(
        soft,
        THREE,
        weighting="inverse-error",
        normalise=True,
        scale="correctness",
        out_of_fold=["bert"],
        unlabelled=[1, 2, 6],
        unlabelled_weighting="agreement",
        unlabelled_scale="disagreement",
    ),
    "soft-of-unsure-samples": partial(soft, min_uncertainty=0.7),
    "soft-out-of-fold": partial(soft, THREE, weighting="inverse-error", scale="correctness", out_of_fold=["roberta", "bert"]),
    "soft-warm": partial(soft, temperature=4.0, at=4.0, squared=True),
    "soft-cooling": partial(soft, temperature=changing(6, 2), at=4.0, squared=True),
    "soft-sum": partial(soft, reduction="sum", weighting="inverse-error"),
    "soft-drawn": partial(soft, THREE, chances=CHANCES, weighting="inverse-error"),
    "soft-of-one": partial(soft, ["bert"], weighting="inverse-error"),
    "logits-mse": logits_mse,
    "logits-mse-annealed": partial(logits_mse, changing(0, 1), 0.5),
    "logits-mse-sum": partial(logits_mse, reduction="sum"),
}


# Hidden states


def hidden(
    kind: Literal["mse", "cosine"] = "mse",
    tokens: Tokens = "all",
    side: Mapping[str, Side | None] | Side | None = "student",
    share: Literal["per-layer", "per-teacher"] = "per-layer",
    normalise: bool = False,
    layers: Reduction = "sum",
    teachers: Reduction = "mean",
    widths: Mapping[str, int] = WIDTHS,
) -> Case:
    bank = Projections()
    options = (PAIRS, widths[STUDENT], widths, bank, side, share, tokens, layers, teachers)
    term = HiddenMseTerm(*options) if kind == "mse" else HiddenCosineTerm(*options)
    distance = reference.square if kind == "mse" else reference.one_minus_cosine
    if normalise:
        assert isinstance(term, HiddenMseTerm)
        term.normalise = True
        distance = reference.square_of_directions

    def parts(moved: RandomSamples, matrices: Matrices) -> Array:
        def projected(teacher: str, student_layer: int, teacher_layer: int) -> tuple[str, Array] | None:
            end = side[teacher] if isinstance(side, Mapping) else side
            place = f"/{student_layer}-{teacher_layer}" if share == "per-layer" else ""
            return None if end is None else (end, matrices[f"hidden-{kind}/{end}/{teacher}{place}"])

        return reference.hidden(moved, PAIRS, distance, tokens, projected, layers, teachers)

    return Case(term, RandomSamples(seed=14, widths=widths), parts, randomised(bank))


MIXED_SIDES: dict[str, Side | None] = {"bert": None, "roberta": "teacher"}
MIXED_WIDTHS = {STUDENT: 6, "bert": 6, "roberta": 3}
ALL_TOKENS: tuple[Tokens, ...] = get_args(Tokens)
PROJECTED: list[tuple[Side, Literal["per-layer", "per-teacher"]]] = [
    ("teacher", "per-layer"),
    ("teacher", "per-teacher"),
    ("student", "per-layer"),
    ("student", "per-teacher"),
]
HIDDEN: dict[str, Make] = {
    **{
        f"mse-{tokens}-{side}-{share}": partial(hidden, "mse", tokens, side, share)
        for tokens in ALL_TOKENS
        for side, share in PROJECTED
    },
    **{f"mse-{tokens}-as-they-are": partial(hidden, "mse", tokens, None, widths=SAME_WIDTHS) for tokens in ALL_TOKENS},
    **{f"mse-{tokens}-normalised": partial(hidden, "mse", tokens, normalise=True) for tokens in ALL_TOKENS},
    "mse-mixed-sides": partial(hidden, "mse", side=MIXED_SIDES, widths=MIXED_WIDTHS),
    "mse-mean-over-layers": partial(hidden, "mse", layers="mean"),
    "mse-mean-over-layers-sum-over-teachers": partial(hidden, "mse", layers="mean", teachers="sum"),
    "mse-sum-over-both": partial(hidden, "mse", "mean", teachers="sum"),
    **{f"cosine-{tokens}-as-they-are": partial(hidden, "cosine", tokens, None, widths=SAME_WIDTHS) for tokens in ALL_TOKENS},
    **{f"cosine-all-{side}-{share}": partial(hidden, "cosine", "all", side, share) for side, share in PROJECTED},
    "cosine-mixed-sides": partial(hidden, "cosine", "cls", side=MIXED_SIDES, widths=MIXED_WIDTHS),
    "cosine-mean-over-layers": partial(hidden, "cosine", "mean", layers="mean"),
    "cosine-sum-over-both": partial(hidden, "cosine", teachers="sum"),
}


def random_layers(concatenated: bool = False, teachers: Reduction = "mean", epoch: int = 0) -> Case:
    bank = Projections()
    depths = {name: DEPTHS[name] for name in TEACHERS}
    term = RandomLayersTerm(
        DEPTHS[STUDENT], WIDTHS[STUDENT], depths, WIDTHS, bank, width=5, concatenated=concatenated, teacher_reduction=teachers
    )
    term.begin(replace(HALFWAY, epoch=epoch))
    share = 1 / len(TEACHERS) if teachers == "mean" else 1.0

    def parts(moved: RandomSamples, matrices: Matrices) -> Array:
        return share * reference.random_layers(moved, term.chosen, matrices, concatenated, term.name)

    return Case(term, RandomSamples(seed=15, layers=DEPTHS), parts, randomised(bank))


RANDOM_LAYERS: dict[str, Make] = {
    "layer-wise": random_layers,
    "layer-wise-sum": partial(random_layers, teachers="sum"),
    "layer-wise-later": partial(random_layers, epoch=2),
    "concatenated": partial(random_layers, True),
    "concatenated-sum-later": partial(random_layers, True, "sum", 1),
}


# Attention


def attention(
    kind: Literal["kl", "mse"],
    heads: Mapping[str, HeadMap],
    layers: Reduction = "sum",
    teachers: Reduction = "mean",
    counts: Mapping[str, int] = HEADS,
) -> Case:
    make, expected = {"kl": (AttentionKlTerm, reference.attention_kl), "mse": (AttentionMseTerm, reference.attention_mse)}[kind]
    term = make(ATTENTION_PAIRS, heads, layers, teachers)
    whole = {name: heads.get(name, "match") for name in TEACHERS}

    def parts(moved: RandomSamples, _: Matrices) -> Array:
        return expected(moved, ATTENTION_PAIRS, whole, layers, teachers)

    return Case(term, RandomSamples(seed=16, heads=counts), parts)


MATCHED: dict[str, HeadMap] = {}
AVERAGED: dict[str, HeadMap] = {"bert": "mean", "roberta": "mean"}
MAPPED: dict[str, HeadMap] = {"bert": {1: 4, 2: 2}, "roberta": {2: 1}}
ATTENTION: dict[str, Make] = {}
for of_what in ("kl", "mse"):
    ATTENTION |= {
        f"{of_what}-matched": partial(attention, of_what, MATCHED, counts=SAME_HEADS),
        f"{of_what}-averaged": partial(attention, of_what, AVERAGED),
        f"{of_what}-mapped": partial(attention, of_what, MAPPED),
        f"{of_what}-averaged-and-mapped": partial(attention, of_what, {**AVERAGED, "roberta": {1: 2, 2: 2}}),
        f"{of_what}-mean-over-layers": partial(attention, of_what, MAPPED, "mean"),
        f"{of_what}-sum-over-both": partial(attention, of_what, AVERAGED, teachers="sum"),
    }


UNLIKE_HEADS = {STUDENT: 3, "bert": 4, "roberta": 3}


def relations(
    chosen: Sequence[Relation] = ("queries", "keys", "values"),
    relation_heads: int | Mapping[str, int | None] | None = 3,
    layers: Reduction = "sum",
    teachers: Reduction = "mean",
    counts: Mapping[str, int] = HEADS,
) -> Case:
    term = RelationKlTerm(TOP_PAIRS, chosen, relation_heads, layers, teachers)
    by_teacher = relation_heads if isinstance(relation_heads, Mapping) else dict.fromkeys(TEACHERS, relation_heads)

    def parts(moved: RandomSamples, _: Matrices) -> Array:
        return reference.relation_kl(moved, TOP_PAIRS, chosen, by_teacher, layers, teachers)

    return Case(term, RandomSamples(seed=17, heads=counts), parts)


RELATIONS: dict[str, Make] = {
    "of-the-heads": partial(relations, relation_heads=None, counts=SAME_HEADS),
    "of-relation-heads": relations,
    "of-heads-by-teacher": partial(relations, relation_heads={"bert": 3, "roberta": None}, counts=UNLIKE_HEADS),
    "in-one-head": partial(relations, relation_heads=1),
    "of-values": partial(relations, ["values"]),
    "of-keys-and-queries": partial(relations, ["keys", "queries"]),
    "mean-over-layers": partial(relations, layers="mean"),
    "sum-over-both": partial(relations, teachers="sum"),
}


# Relations between samples


def relational(
    states: Literal["cls", "mean", "logits"] = "mean",
    weights: tuple[float, float] = (1.0, 2.0),
    group: int | None = None,
    layers: Reduction = "sum",
    teachers: Reduction = "mean",
    count: int = 8,
) -> Case:
    pairs = {name: {2: LAYERS[name]} for name in TEACHERS} if states == "logits" else TOP_PAIRS
    term = RelationalTerm(pairs, states, *weights, group, layers, teachers)

    def parts(moved: RandomSamples, _: Matrices) -> Array:
        return reference.relational(moved, pairs, states, weights, group, layers, teachers)

    return Case(term, RandomSamples(count, seed=18), parts)


RELATIONAL: dict[str, Make] = {
    **{f"{states}-whole": partial(relational, states) for states in ("cls", "mean", "logits")},
    **{f"{states}-by-four": partial(relational, states, group=4) for states in ("cls", "mean", "logits")},
    "distances-alone": partial(relational, "cls", (1.5, 0.0), 4),
    "angles-alone": partial(relational, "cls", (0.0, 0.7), 4),
    "mean-over-layers": partial(relational, layers="mean", group=4),
    "sum-over-both": partial(relational, teachers="sum", group=4),
    "last-group-of-one": partial(relational, group=4, count=5),
    "last-group-of-three": partial(relational, "logits", group=4, count=7),
}

FAMILIES = {
    "labels": LABELS,
    "hidden": HIDDEN,
    "random-layers": RANDOM_LAYERS,
    "attention": ATTENTION,
    "relations": RELATIONS,
    "relational": RELATIONAL,
}
ALL: dict[str, Make] = {f"{family}: {name}": make for family, cases in FAMILIES.items() for name, make in cases.items()}
