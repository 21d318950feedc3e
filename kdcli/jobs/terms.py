"""From the plan's terms to loss terms: what a line of a recipe's objective is when it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from kdcli.engine.phase import Stage
from kdcli.losses.attention import AttentionKlTerm, AttentionMseTerm, RelationKlTerm
from kdcli.losses.hidden import HiddenCosineTerm, HiddenMseTerm
from kdcli.losses.labels import HardLabelsTerm, LogitsMseTerm, SoftLabelsTerm
from kdcli.losses.projection import Projections
from kdcli.losses.random_layers import RandomLayersTerm
from kdcli.losses.relational import RelationalTerm
from kdcli.losses.term import Term
from kdcli.plan.plan import HopPlan, Plan, TermPlan
from kdcli.recipe.schema import (
    AttentionKl,
    AttentionMse,
    HardLabels,
    HiddenCosine,
    HiddenMse,
    LogitsMse,
    Projection,
    RandomLayers,
    Relational,
    RelationKl,
    SoftLabels,
)


def make_stages(plan: Plan, hop: HopPlan, dev_scores: Mapping[str, float]) -> tuple[list[Stage], Projections]:
    """One training's stages with their terms, and the learnable maps that they share; those start from the run's seed.

    Args:
        plan: the whole plan.
        hop: the training.
        dev_scores: teacher → score on dev, for terms that rank teachers.
    """
    torch.manual_seed(int(plan.request["seed"]))
    projections = Projections()
    stages = [
        Stage(
            stage.name,
            stage.steps,
            [make_term(term, plan, hop, projections, dev_scores) for term in stage.terms],
            stage.learning_rates,
            stage.warmup,
            stage.schedule,
            stage.freeze,
            stage.until,
        )
        for stage in hop.stages
    ]
    return stages, projections


def make_term(term: TermPlan, plan: Plan, hop: HopPlan, projections: Projections, dev_scores: Mapping[str, float]) -> Term:
    """The loss term that a planned term stands for."""
    loss, names = term.loss, term.teachers
    teachers = [plan.teacher(name) for name in names]
    widths = {teacher.name: teacher.width for teacher in teachers}
    if isinstance(loss, HardLabels):
        return HardLabelsTerm(weight=loss.weight, name=loss.name)
    if isinstance(loss, SoftLabels):
        return SoftLabelsTerm(
            names,
            loss.temperature,
            loss.temperature_squared,
            loss.divergence,
            {name: loss.weighting.get(name, 1.0) for name in names} if isinstance(loss.weighting, dict) else loss.weighting,
            loss.normalise_weights,
            loss.scale,
            loss.min_uncertainty,
            _chances(loss, names, dev_scores),
            {teacher.name: teacher.parameters for teacher in teachers},
            loss.teacher_reduction,
            loss.weight,
            loss.name,
            loss.unlabelled_weighting,
            loss.unlabelled_scale,
        )
    if isinstance(loss, LogitsMse):
        return LogitsMseTerm(names, loss.factor, loss.teacher_reduction, loss.weight, loss.name)
    if isinstance(loss, RandomLayers):
        return RandomLayersTerm(
            hop.student.layers,
            hop.student.width,
            {teacher.name: teacher.layers for teacher in teachers},
            widths,
            projections,
            loss.width,
            loss.form == "concatenated",
            loss.teacher_reduction,
            loss.weight,
            loss.name,
        )
    reductions = (loss.layer_reduction, loss.teacher_reduction, loss.weight, loss.name)
    if isinstance(loss, AttentionKl):
        return AttentionKlTerm(term.layers, term.heads, *reductions)
    if isinstance(loss, AttentionMse):
        return AttentionMseTerm(term.layers, term.heads, *reductions)
    if isinstance(loss, RelationKl):
        return RelationKlTerm(term.layers, loss.relations, term.relation_heads, *reductions)
    if isinstance(loss, Relational):
        pairs = term.layers or {name: {0: 0} for name in names}
        return RelationalTerm(pairs, loss.states, loss.distance_weight, loss.angle_weight, loss.group, *reductions)
    share = loss.projection.share if isinstance(loss.projection, Projection) else "per-layer"
    hidden = (term.layers, hop.student.width, widths, projections, term.projected, share, loss.tokens)
    if isinstance(loss, HiddenCosine):
        return HiddenCosineTerm(*hidden, *reductions)
    assert isinstance(loss, HiddenMse)
    return HiddenMseTerm(*hidden, *reductions, normalise=loss.normalise)


def _chances(loss: SoftLabels, names: Sequence[str], dev_scores: Mapping[str, float]) -> dict[str, float] | None:
    """Teacher → chance of being drawn: alike, or by rank (the best of N gets N shares, the worst one)."""
    if loss.draw is None:
        return None
    if loss.draw == "uniform":
        return dict.fromkeys(names, 1.0 / len(names))
    ranked = sorted(names, key=lambda name: dev_scores[name])
    return {name: 2.0 * (ranked.index(name) + 1) / (len(names) * (len(names) + 1)) for name in names}
