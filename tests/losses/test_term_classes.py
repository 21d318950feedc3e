"""Which term computes which loss, and that both say the same of what is looked at."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import pytest

import kdcli
from kdcli.losses import weighting
from kdcli.losses.divergences import DIVERGENCES
from kdcli.losses.hard_labels import HardLabelsTerm
from kdcli.losses.layer_term import LayerTerm
from kdcli.losses.projection import Projections
from kdcli.losses.setting import Setting
from kdcli.losses.term_classes import computes, make_term, term_class
from kdcli.models.student import STUDENT
from kdcli.recipe.loss import LayerLoss, LossBlock
from kdcli.recipe.loss_blocks import losses
from kdcli.recipe.losses.hard_labels import HardLabels
from kdcli.recipe.losses.soft_labels import DivergenceName, SoftLabels
from kdcli.recipe.term_plan import TermPlan
from kdcli.recipe.weightings import SCALES, WEIGHTINGS

ROOMS = Path(kdcli.__file__).parent


@dataclass(frozen=True)
class Model:
    layers: int
    width: int
    parameters: int = 1000


SETTING = Setting(Model(2, 8), {"bert": Model(4, 8), "roberta": Model(6, 12)}, Projections(), {"bert": 0.8, "roberta": 0.9})
EACH: dict[str, dict[str, Any]] = {
    **{loss.loss_name(): {} for loss in losses()},
    "relational of logits": {"loss": "relational", "states": "logits"},
    "relation-kl of values": {"loss": "relation-kl", "relations": ["values"]},
    "soft-labels drawn": {"loss": "soft-labels", "draw": "ranked"},
}


def planned(block: LossBlock) -> TermPlan:
    """A term on two teachers, with all that any loss may have settled."""
    sides: dict[str, Any] = {"bert": None, "roberta": "student"}
    teachers = [] if isinstance(block, HardLabels) else list(SETTING.teachers)
    layers = {"bert": {1: 2, 2: 4}, "roberta": {2: 6}} if block.compares_layers else {}
    heads: dict[str, Any] = {"bert": "match", "roberta": "mean"}
    return TermPlan(loss=block, teachers=teachers, layers=layers, heads=heads, relation_heads={"bert": 4}, projected=sides)


@pytest.mark.parametrize("about", EACH)
def test_term_is_made_for_every_loss_and_looks_at_what_its_block_says(about: str) -> None:
    settings: dict[str, Any] = {"loss": about, "weight": 0.5, **EACH[about]}
    block = next(loss for loss in losses() if loss.loss_name() == settings["loss"]).model_validate(settings)
    plan = planned(block)
    term = make_term(plan, SETTING)
    assert type(term) is term_class(type(block))
    assert (term.name, term.weight) == (settings["loss"], 0.5)
    wanted = term.may_need()
    assert set(wanted) == {STUDENT, *plan.teachers}
    assert {name: asked.kinds() for name, asked in wanted.items()} == dict.fromkeys(wanted, block.needs())
    for name in plan.teachers:
        for kind in block.needs():
            assert getattr(wanted[name], kind) == block.layers_seen(plan.layers.get(name, {}), SETTING.teachers[name].layers)


def test_ranked_teachers_are_drawn_by_their_scores() -> None:
    term: Any = make_term(TermPlan(loss=SoftLabels(loss="soft-labels", draw="ranked"), teachers=["bert", "roberta"]), SETTING)
    assert term.chances.tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("block", losses(), ids=lambda block: block.loss_name())
def test_block_and_term_stand_in_files_of_the_name_of_the_loss(block: type[LossBlock]) -> None:
    name = block.loss_name().replace("-", "_")
    assert block.__module__ == f"kdcli.recipe.losses.{name}"
    assert term_class(block).__module__ == f"kdcli.losses.{name}"


@pytest.mark.parametrize("block", losses(), ids=lambda block: block.loss_name())
def test_nobody_asks_which_loss_it_is(block: type[LossBlock]) -> None:
    """What differs between losses is said by them; whoever asks would have to be changed with every new one."""
    asks = [
        f"{path.relative_to(ROOMS)}:{call.lineno}"
        for path in ROOMS.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "isinstance"
        and any(isinstance(node, ast.Name) and node.id == block.__name__ for node in ast.walk(call))
    ]  # fmt: skip
    assert asks == []


def test_term_that_looks_at_more_than_its_block_says_is_refused() -> None:
    class Modest(LayerLoss):
        """A block that says too little."""

        loss: Literal["modest"]

        def needs(self) -> frozenset[str]:
            return frozenset({"hidden"})

    @computes(Modest)
    class ModestTerm(LayerTerm):
        kinds = ("hidden", "attention")

        @classmethod
        def planned(cls, loss: Modest, term: TermPlan, setting: Setting) -> Self:
            return cls(term.layers, **cls.common(loss))

    plan = TermPlan.model_construct(loss=Modest(loss="modest"), teachers=["bert"], layers={"bert": {1: 2}})
    with pytest.raises(TypeError, match=r"Modest\.needs\(\) does not say that the loss looks at attention"):
        make_term(plan, SETTING)


def test_loss_is_computed_by_one_term() -> None:
    with pytest.raises(TypeError, match="Another cannot compute 'hard-labels': HardLabelsTerm does"):

        @computes(HardLabels)
        class Another(HardLabelsTerm):
            pass


def test_whatever_a_recipe_may_name_is_computed() -> None:
    assert weighting.WEIGHTINGS.keys() == WEIGHTINGS.keys()
    assert weighting.SCALES.keys() == SCALES.keys()
    assert set(DIVERGENCES) == set(get_args(DivergenceName))
