"""The plan of every shipped recipe against what its paper describes, written down by hand.

The teachers are a BERT of 4 layers and width 32 and a RoBERTa of 6 layers and width 48, both with 4 heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kdcli.data.task import Task
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.plan import HopPlan, Plan
from kdcli.recipe.catalogue import shipped
from kdcli.recipe.term_plan import TermPlan
from tests.plan.desk import Desk, Maps, Shelf

# student size → teacher → {student layer: teacher layer}
UNIFORM: dict[str, Maps] = {
    "2L": {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}},
    "3L": {"bert": {1: 1, 2: 3, 3: 4}, "roberta": {1: 2, 2: 4, 3: 6}},
}
TOP: dict[str, Maps] = {
    "2L": {"bert": {2: 4}, "roberta": {2: 6}},
    "3L": {"bert": {3: 4}, "roberta": {3: 6}},
}
MIDDLE: dict[str, Maps] = {
    "2L": {"bert": {1: 2}, "roberta": {1: 3}},
    "3L": {"bert": {1: 2}, "roberta": {1: 3}},
}
SKIP: dict[str, Maps] = {
    "2L": {"bert": {1: 2}, "roberta": {1: 3}},
    "3L": {"bert": {1: 1, 2: 3}, "roberta": {1: 2, 2: 4}},
}
LAST_BELOW_THE_TOP: dict[str, Maps] = {
    "2L": {"bert": {1: 3}, "roberta": {1: 5}},
    "3L": {"bert": {1: 2, 2: 3}, "roberta": {1: 4, 2: 5}},
}
EMBEDDINGS: dict[str, Maps] = {size: {"bert": {0: 0}, "roberta": {0: 0}} for size in ("2L", "3L")}

FIRST = {"2L": [1, 2], "3L": [1, 2, 3]}
MATCHED = {"2L": [2, 4], "3L": [1, 3, 4]}
OPEN = 30  # epochs of a stage that leaves them open, for 1,000 rows
BOTH = ["bert", "roberta"]
MATCHING_HEADS = {"bert": "match", "roberta": "match"}
WHERE_WIDTHS_DIFFER = {"bert": None, "roberta": "student"}
STUDENTS_SIDE = {"bert": "student", "roberta": "student"}
TEACHERS_SIDE = {"bert": "teacher", "roberta": "teacher"}


@dataclass(frozen=True)
class Term:
    """What a paper says of one term; ``settings`` are the values that it deviates in from the plain form of the loss."""

    loss: str
    weight: Any = 1.0
    layers: dict[str, Maps] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    relation_heads: dict[str, int | None] = field(default_factory=dict)
    projected: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def at(self, size: str) -> dict[str, Any]:
        """What the plan should say for a student of that size."""
        return {
            "loss": self.loss,
            "weight": self.weight,
            "layers": self.layers.get(size, {}),
            "heads": self.heads,
            "relation_heads": self.relation_heads,
            "projected": self.projected,
            "settings": self.settings,
        }


@dataclass(frozen=True)
class Stage:
    """A stage, and the highest part of the student that its losses reach (None: the head, and so everything)."""

    name: str
    epochs: float
    terms: list[Term]
    reaches: dict[str, int] | None = None


@dataclass(frozen=True)
class Described:
    """A recipe as its paper has it."""

    stages: dict[str, list[Stage]]
    copied: dict[str, list[int]] = field(default_factory=lambda: FIRST)


def alike(*stages: Stage) -> dict[str, list[Stage]]:
    """The same stages for students of every depth."""
    return {size: list(stages) for size in ("2L", "3L")}


def hard(weight: float = 1.0) -> Term:
    return Term("hard-labels", weight)


def soft(weight: Any = 1.0, **settings: Any) -> Term:
    return Term("soft-labels", weight, settings=settings)


def hinton(weight: float, temperature: float, **settings: Any) -> Term:
    """t²·KL(p_T ‖ p_S) at a temperature."""
    return soft(weight, divergence="kl", temperature=temperature, temperature_squared=True, **settings)


def internal(maps: dict[str, Maps]) -> list[Term]:
    """KL of the attention and cosine of [CLS] (Aguilar et al.)."""
    return [
        Term("attention-kl", layers=maps, heads=MATCHING_HEADS),
        Term("hidden-cosine", layers=maps, projected=WHERE_WIDTHS_DIFFER),
    ]


def only(size: str, maps: Maps) -> dict[str, Maps]:
    return {size: maps}


PATIENT = {"tokens": "cls", "normalise": True, "layer_reduction": "mean"}
CLASSIFICATION = Stage("classification", 4, [soft()])
BELOW_THE_HEAD = {"2L": 2, "3L": 3}

DESCRIBED: dict[str, Described] = {
    "annealing": Described(
        alike(
            Stage("logits", 7, [Term("logits-mse", settings={"factor": {"from": "share", "to": 1.0, "every": "epoch"}})]),
            Stage("labels", 3, [hard()]),
        )
    ),
    "born-again": Described(alike(Stage("distill", 4, [hard(0.5), soft(0.5)]))),
    "distilbert": Described(
        alike(
            Stage(
                "distill",
                5,
                [
                    hard(2.0),
                    hinton(5.0, 2.0),
                    Term("hidden-cosine", layers=TOP, projected=WHERE_WIDTHS_DIFFER, settings={"tokens": "all"}),
                ],
            )
        ),
        copied=MATCHED,  # every other layer, the last one included
    ),
    "dynamic": Described(alike(Stage("distill", 5, [hard(0.5), hinton(0.5, 2.0, weighting="uncertainty")]))),
    "f-divergence": Described(alike(Stage("distill", 5, [hard(0.5), soft(0.5, divergence="js")]))),
    "finetune": Described(alike(Stage("finetune", OPEN, [hard()]))),
    "fitnets": Described(
        alike(
            Stage("hint", 3, [Term("hidden-mse", layers=MIDDLE, projected=STUDENTS_SIDE)], reaches={"2L": 1, "3L": 1}),
            Stage("distill", 4, [hard(0.5), hinton(0.5, 4.0)]),
        )
    ),
    "internal-all": Described(alike(Stage("distill", 5, [*internal(UNIFORM), soft()])), copied=MATCHED),
    "internal-progressive": Described(
        {
            "2L": [
                Stage("internal-1", 1, internal(only("2L", {"bert": {1: 2}, "roberta": {1: 3}})), reaches={"2L": 1}),
                Stage("internal-2", 1, internal(only("2L", {"bert": {2: 4}, "roberta": {2: 6}})), reaches={"2L": 2}),
                CLASSIFICATION,
            ],
            "3L": [
                Stage("internal-1", 1, internal(only("3L", {"bert": {1: 1}, "roberta": {1: 2}})), reaches={"3L": 1}),
                Stage("internal-2", 1, internal(only("3L", {"bert": {2: 3}, "roberta": {2: 4}})), reaches={"3L": 2}),
                Stage("internal-3", 1, internal(only("3L", {"bert": {3: 4}, "roberta": {3: 6}})), reaches={"3L": 3}),
                CLASSIFICATION,
            ],
        },
        copied=MATCHED,
    ),
    "internal-stacked": Described(
        {
            "2L": [
                Stage("internal-1", 1, internal(only("2L", {"bert": {1: 2}, "roberta": {1: 3}})), reaches={"2L": 1}),
                Stage("internal-2", 1, internal(UNIFORM), reaches={"2L": 2}),
                CLASSIFICATION,
            ],
            "3L": [
                Stage("internal-1", 1, internal(only("3L", {"bert": {1: 1}, "roberta": {1: 2}})), reaches={"3L": 1}),
                Stage(
                    "internal-2", 1, internal(only("3L", {"bert": {1: 1, 2: 3}, "roberta": {1: 2, 2: 4}})), reaches={"3L": 2}
                ),
                Stage("internal-3", 1, internal(UNIFORM), reaches={"3L": 3}),
                CLASSIFICATION,
            ],
        },
        copied=MATCHED,
    ),
    "kdcli": Described(
        alike(
            Stage(
                "distill",
                OPEN,
                [
                    hard(),
                    soft(
                        divergence="kl",
                        temperature=4.0,
                        temperature_squared=True,
                        unlabelled_weighting="agreement",
                        teacher_reduction="sum",
                    ),
                    Term("hidden-mse", layers=UNIFORM, projected=STUDENTS_SIDE, settings={"teacher_reduction": "sum"}),
                ],
            )
        ),
        copied=MATCHED,
    ),
    "minilm": Described(
        alike(
            Stage(
                "relations",
                4,
                [
                    Term("attention-kl", layers=TOP, heads=MATCHING_HEADS),
                    Term(
                        "relation-kl",
                        layers=TOP,
                        relation_heads={"bert": None, "roberta": None},
                        settings={"relations": ["values"]},
                    ),
                ],
                reaches=BELOW_THE_HEAD,
            ),
            Stage("prediction", 3, [hard(0.5), soft(0.5)]),
        )
    ),
    "minilm-v2": Described(
        alike(
            Stage(
                "relations",
                4,
                # the largest number up to 48 that divides 32 and 32, and 32 and 48
                [Term("relation-kl", layers=TOP, relation_heads={"bert": 32, "roberta": 16})],
                reaches=BELOW_THE_HEAD,
            ),
            Stage("prediction", 3, [hard(0.5), soft(0.5)]),
        )
    ),
    "mt-bert": Described(
        alike(
            Stage(
                "distill",
                5,
                [
                    hard(),
                    soft(weighting="inverse-error", unlabelled_weighting="agreement", teacher_reduction="sum"),
                    Term("hidden-mse", layers=UNIFORM, projected=TEACHERS_SIDE, settings={"teacher_reduction": "sum"}),
                ],
            )
        )
    ),
    "patient-last": Described(
        alike(
            Stage(
                "distill",
                4,
                [
                    hard(0.5),
                    hinton(0.5, 10.0),
                    Term("hidden-mse", 100.0, LAST_BELOW_THE_TOP, projected=WHERE_WIDTHS_DIFFER, settings=PATIENT),
                ],
            )
        )
    ),
    "patient-skip": Described(
        alike(
            Stage(
                "distill",
                4,
                [
                    hard(0.5),
                    hinton(0.5, 10.0),
                    Term("hidden-mse", 100.0, SKIP, projected=WHERE_WIDTHS_DIFFER, settings=PATIENT),
                ],
            )
        )
    ),
    "rail": Described(alike(Stage("distill", 5, [hard(), soft(), Term("random-layers")]))),
    "relational": Described(alike(Stage("distill", 5, [hard(), Term("relational", 25.0, TOP)]))),
    "soft-labels": Described(alike(Stage("distill", 5, [hard(0.5), hinton(0.5, 4.0)]))),
    "stochastic-teacher": Described(alike(Stage("distill", 5, [hard(0.5), hinton(0.5, 2.0, draw="uniform")]))),
    "teacher-annealing": Described(
        alike(
            Stage(
                "distill",
                5,
                [Term("hard-labels", {"from": 0.0, "to": 1.0}), soft({"from": 1.0, "to": 0.0})],
            )
        )
    ),
    "teacher-assistant": Described(alike(Stage("distill", 4, [hard(0.5), hinton(0.5, 4.0)]))),
    "tinybert": Described(
        alike(
            Stage(
                "intermediate",
                10,
                [
                    Term("embeddings-mse", layers=EMBEDDINGS, projected=STUDENTS_SIDE),
                    Term("hidden-mse", layers=UNIFORM, projected=STUDENTS_SIDE),
                    Term("attention-mse", layers=UNIFORM, heads=MATCHING_HEADS),
                ],
                reaches=BELOW_THE_HEAD,
            ),
            Stage("prediction", 3, [soft()]),
        )
    ),
    "unikd": Described(
        alike(
            Stage(
                "distill",
                5,
                [
                    hard(),
                    soft(
                        weighting="inverse-error",
                        normalise_weights=True,
                        scale="correctness",
                        unlabelled_weighting="uniform",
                        unlabelled_scale="disagreement",
                    ),
                ],
            )
        )
    ),
}
WITHOUT_TEACHERS = {"hard-labels"}
every_recipe = pytest.mark.parametrize("name", sorted(shipped()))
both_sizes = pytest.mark.parametrize("size", ["2L", "3L"])


def test_every_shipped_recipe_is_described() -> None:
    assert set(DESCRIBED) == set(shipped())


def last_hop(name: str, shelf: Shelf, size: str | None) -> HopPlan:
    """The student's own training; a chain begins at teachers that are deep enough for it."""
    teachers = {"bert": shelf.model(layers=8)} if name == "teacher-assistant" else shelf.two()
    return shelf.check(shipped()[name].read_text(encoding="utf-8"), teachers=teachers, student=size)[-1]


def said(term: TermPlan) -> dict[str, Any]:
    """A planned term in the table's form."""
    given = term.loss.model_dump(by_alias=True, exclude_defaults=True)
    written = {"loss", "name", "weight", "layers", "projection", "heads", "relation_heads"}
    return {
        "loss": term.loss.label,
        "weight": given.get("weight", 1.0),
        "layers": term.layers,
        "heads": term.heads,
        "relation_heads": term.relation_heads,
        "projected": term.projected,
        "settings": {key: value for key, value in given.items() if key not in written},
    }


@both_sizes
@every_recipe
def test_plan_has_the_stages_and_terms_of_the_paper(name: str, size: str, shelf: Shelf) -> None:
    hop, described = last_hop(name, shelf, size), DESCRIBED[name].stages[size]
    assert [(stage.name, stage.epochs) for stage in hop.stages] == [(stage.name, stage.epochs) for stage in described]
    for stage, expected in zip(hop.stages, described, strict=True):
        assert [said(term) for term in stage.terms] == [term.at(size) for term in expected.terms]
        asked = ["assistant-1"] if name == "teacher-assistant" else BOTH
        for term in stage.terms:
            assert term.teachers == ([] if term.loss.loss_name() in WITHOUT_TEACHERS else asked)


@both_sizes
@every_recipe
def test_what_moves_is_what_the_losses_reach(name: str, size: str, shelf: Shelf) -> None:
    depth = int(size[0])
    for stage, expected in zip(last_hop(name, shelf, size).stages, DESCRIBED[name].stages[size], strict=True):
        top = depth if expected.reaches is None else expected.reaches[size]
        assert stage.moves == ["embeddings", *range(1, top + 1), *(["head"] if expected.reaches is None else [])]


@both_sizes
@every_recipe
def test_student_begins_as_the_paper_says(name: str, size: str, shelf: Shelf) -> None:
    student = last_hop(name, shelf, size).student
    assert student.copied_layers == DESCRIBED[name].copied[size]
    assert student.weights == ("finetuned" if name == "kdcli" else "pretrained")


def test_born_again_student_is_as_large_as_its_teacher_where_no_size_is_asked_for(shelf: Shelf) -> None:
    student = last_hop("born-again", shelf, None).student
    assert (student.layers, student.width, student.heads, student.copied_layers) == (4, 32, 4, [1, 2, 3, 4])


@pytest.mark.parametrize("name", ["internal-progressive", "internal-stacked"])
def test_internal_stages_end_early_when_the_cosine_is_small(name: str, shelf: Shelf) -> None:
    *internals, last = last_hop(name, shelf, "3L").stages
    for stage in internals:
        assert stage.until is not None
        assert stage.until.loss == "hidden-cosine"
    assert last.until is None


@pytest.mark.parametrize("name", ["dynamic", "stochastic-teacher"])
def test_recipe_that_chooses_between_teachers_refuses_a_single_one(name: str, shelf: Shelf) -> None:
    (problem,) = shelf.refused(shipped()[name].read_text(encoding="utf-8"), teachers=shelf.one())
    assert problem.what == "needs two teachers or more to choose from"


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"dynamic", "stochastic-teacher"}))
def test_every_other_recipe_takes_a_single_teacher(name: str, shelf: Shelf) -> None:
    assert shelf.check(shipped()[name].read_text(encoding="utf-8"), teachers=shelf.one())


def without_steps(hops: list[HopPlan]) -> list[HopPlan]:
    return [hop.model_copy(update={"stages": [stage.model_copy(update={"steps": 0}) for stage in hop.stages]}) for hop in hops]


@pytest.fixture(scope="module")
def plans(task: Task, tiny_bert: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    desk = Desk(tmp_path_factory.mktemp("desk"), task, tiny_bert, tiny_roberta)
    return {name: desk.plan_of(name, "training.precision=fp32") for name in shipped()}


def test_plans_of_whole_requests_are_the_checked_ones_and_survive_being_written_and_read(
    plans: dict[str, Plan], shelf: Shelf, tiny_bert: Path, tiny_roberta: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    for name, plan in plans.items():
        text = shipped()[name].read_text(encoding="utf-8")
        checked = shelf.check(text, teachers={"bert": tiny_bert, "roberta": tiny_roberta})
        assert [(hop.name, hop.teachers) for hop in plan.hops] == [(hop.name, hop.teachers) for hop in checked]
        assert without_steps(plan.hops)[-1].stages == without_steps(checked)[-1].stages
        assert Plan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan
        folder.write_plan(plan)
        assert folder.read_plan() == plan


def test_bare_teachers_are_cofinetuned_where_the_recipe_asks_them(plans: dict[str, Plan]) -> None:
    cofinetuned = {name for name, plan in plans.items() if plan.cofinetune}
    assert cofinetuned == set(shipped()) - {"finetune"}


@pytest.mark.parametrize("loss", ["hidden-cosine, tokens: cls", "hidden-mse, tokens: cls", "relational, states: cls"])
def test_a_recipe_that_teaches_cls_beside_another_pooling_is_told_so(loss: str, desk: Desk) -> None:
    text = f"name: mine\nstages:\n  - name: s\n    objective:\n      - {{loss: {loss}}}\n"
    (note,) = [note for note in desk.plan(text).notes if "[CLS]" in note]
    assert "--set teachers.cofinetune.pooling=cls" in note
    assert not [note for note in desk.plan(text, "teachers.cofinetune.pooling=cls").notes if "[CLS]" in note]


def test_teachers_answer_through_cls_where_a_recipe_teaches_it(plans: dict[str, Plan]) -> None:
    through_cls = {name for name, plan in plans.items() if plan.recipe.teachers.cofinetune.pooling == "cls"}
    assert through_cls == {"internal-all", "internal-progressive", "internal-stacked", "patient-last", "patient-skip"}
    assert not [note for plan in plans.values() for note in plan.notes if "[CLS]" in note]
