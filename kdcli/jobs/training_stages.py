"""From the plan's terms to loss terms: what a line of a recipe's objective is when it is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from kdcli.engine.stages import Stage
from kdcli.losses.projection import Projections
from kdcli.losses.setting import Setting
from kdcli.losses.term_classes import make_term
from kdcli.plan.plan import HopPlan, Plan


def make_stages(plan: Plan, hop: HopPlan, dev_scores: Mapping[str, float]) -> tuple[list[Stage], Projections]:
    """One training's stages with their terms, and the learnable maps that they share; those start from the run's seed.

    Args:
        plan: the whole plan.
        hop: the training.
        dev_scores: teacher → score on dev, for terms that rank teachers.
    """
    torch.manual_seed(int(plan.request["seed"]))
    projections = Projections()
    teachers = {name: plan.teacher(name) for name in hop.teachers}
    setting = Setting(hop.student, teachers, projections, dev_scores, plan.task.known())
    stages = [Stage(stage, [make_term(term, setting) for term in stage.terms]) for stage in hop.stages]
    return stages, projections
