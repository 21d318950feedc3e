"""A loss that is no part of kdcli: registered here, written into a recipe, planned, documented, trained."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pytest
import torch
from pydantic import Field
from torch import Tensor

from kdcli.data.batching import Batch
from kdcli.data.task_loading import DataRequest
from kdcli.engine.events import Event, Events, Logged
from kdcli.errors import RequestError
from kdcli.jobs.distill import distill
from kdcli.jobs.request_checks import dry_plan
from kdcli.losses.layer_term import LayerTerm, matched_tokens
from kdcli.losses.setting import Setting
from kdcli.losses.term import Outputs
from kdcli.losses.term_classes import computes
from kdcli.models.student import STUDENT
from kdcli.plan.plan import Plan
from kdcli.plan.request import TrainRequest
from kdcli.recipe.language_reference import json_schema, key_tables
from kdcli.recipe.loading import load
from kdcli.recipe.loss import LayerLoss
from kdcli.recipe.loss_blocks import losses, registered, withdraw
from kdcli.recipe.model_shapes import Models, ModelShape
from kdcli.recipe.term_plan import TermPlan
from kdcli.recipe.yaml_document import KeyPath, Override

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """\
name: lengths
stages:
  - name: lengths
    epochs: 6
    objective:
      - {loss: hidden-length, ratio: 2.0, layers: {bert: {1: 1, 2: 4}, roberta: top}}
training: {learning_rate: 3.0e-3, batch_size: 16, precision: fp32}
teachers: {cofinetune: {learning_rate: 3.0e-3, epochs: 1}}
"""


class HiddenLength(LayerLoss):
    """Squared difference of the mean lengths of hidden states."""

    loss: Literal["hidden-length"]
    ratio: float = Field(1.0, gt=0, description="of the student's length to the teacher's, where their widths are the same")

    def needs(self) -> frozenset[str]:
        return frozenset({"hidden"})

    def settle(self, teachers: Sequence[ModelShape], path: KeyPath, models: Models) -> dict[str, Any]:
        if self.ratio > 10:
            models.refuse((*path, "ratio"), "makes no sense", expected="at most 10")
        ratios = {teacher.name: self.ratio * (models.student.width / teacher.width) ** 0.5 for teacher in teachers}
        return {**super().settle(teachers, path, models), "ratios": ratios}


@computes(HiddenLength)
class HiddenLengthTerm(LayerTerm):
    name = "hidden-length"
    kinds = ("hidden",)
    ratios: dict[str, float]

    @classmethod
    def planned(cls, loss: HiddenLength, term: TermPlan, setting: Setting) -> Self:
        made = cls(term.layers, **cls.common(loss))
        made.ratios = term.more["ratios"]
        return made

    def units(self, batch: Batch, teacher: str) -> Tensor:
        return torch.full((), float(len(batch)), device=batch.rows.device)

    def compare(self, batch: Batch, outputs: Outputs, teacher: str, student_layer: int, teacher_layer: int) -> Tensor:
        mask = matched_tokens(batch, teacher).float()
        ours = outputs[STUDENT].hidden[student_layer].float().norm(dim=-1)
        theirs = batch.runs[teacher].pull(outputs[teacher].hidden[teacher_layer].float()).norm(dim=-1)
        difference = ((ours - self.ratios[teacher] * theirs) * mask).sum(-1) / mask.sum(-1)
        total: Tensor = difference.square().sum()
        return total


@pytest.fixture
def known() -> Iterator[None]:
    registered(HiddenLength)
    yield
    withdraw(HiddenLength)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "lengths.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def request_for_lengths(recipe: Path, tiny_bert: Path, tiny_roberta: Path, tiny_data: Path) -> TrainRequest:
    return TrainRequest(
        command="distill",
        teachers=f"bert={tiny_bert},roberta={tiny_roberta}",
        student="2L",
        recipe=str(recipe),
        data=DataRequest(data=str(tiny_data)),
        device="cpu",
        allow_weak_teachers=True,
    )


@pytest.mark.usefixtures("known")
def test_loss_from_outside_trains_a_student(request_for_lengths: TrainRequest, tmp_path: Path) -> None:
    told: list[Event] = []
    run, evaluation = distill(request_for_lengths, Events([told.append]), tmp_path / "run")
    values = [event.values["loss/hidden-length"] for event in told if isinstance(event, Logged) and event.stage == "lengths"]
    assert values[-1] < 0.8 * values[0]
    assert [answer.name for answer in evaluation.models if answer.role == "student"]
    assert run.read_plan() == Plan.model_validate(run.read_plan().model_dump(by_alias=True))


@pytest.mark.usefixtures("known")
def test_plan_holds_what_a_loss_from_outside_has_settled_and_needs(request_for_lengths: TrainRequest) -> None:
    plan = dry_plan(request_for_lengths, Events())
    (stage,) = plan.hops[0].stages
    (term,) = stage.terms
    assert isinstance(term.loss, HiddenLength)
    assert term.layers == {"bert": {1: 1, 2: 4}, "roberta": {2: 6}}
    assert term.more == {"ratios": {"bert": 2.0, "roberta": pytest.approx(2.0 * (32 / 48) ** 0.5)}}
    assert term.model_dump()["more"] == term.more
    assert stage.moves == ["embeddings", 1, 2]
    assert plan.estimate is not None
    rows, tokens = 160, plan.estimate.tokens_per_sample
    assert plan.estimate.disk_bytes == pytest.approx(rows * 2 * tokens * (2 * 32 + 48), rel=0.01)


@pytest.mark.usefixtures("known")
def test_mistakes_in_a_loss_from_outside_are_told_with_their_place(recipe: Path, request_for_lengths: TrainRequest) -> None:
    with pytest.raises(RequestError, match=r"objective\.0\.ratio: has a wrong value\n.*expected +greater than 0"):
        load(recipe, [Override.parse("stages.0.objective.0.ratio=0")])
    with pytest.raises(RequestError, match=r"unknown key 'ration'[\s\S]*did you mean 'ratio'"):
        load(recipe, [Override.parse("stages.0.objective.0.ration=1")])
    for value, told in {
        "layers.bert={1: 7}": r"objective\.0\.layers\.bert: teacher layer 7 does not exist",
        "ratio=11": r"ratio: makes no sense\n.*expected +at most 10",
    }.items():
        override = Override.parse(f"stages.0.objective.0.{value}")
        changed = request_for_lengths.model_copy(update={"overrides": (override,)})
        with pytest.raises(RequestError, match=told):
            dry_plan(changed, Events())


@pytest.mark.usefixtures("known")
def test_loss_from_outside_is_documented_behind_those_of_kdcli() -> None:
    assert losses()[-1] is HiddenLength
    assert "### `loss: hidden-length`\n\nSquared difference of the mean lengths of hidden states." in key_tables()
    assert json_schema()["$defs"]["HiddenLength"]["properties"]["ratio"]["exclusiveMinimum"] == 0


def test_loss_of_the_documentation_trains_a_student(
    tiny_bert: Path, tiny_roberta: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """In a process of its own, by the file that the documentation shows."""
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_losses.py").write_text(code, encoding="utf-8")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE.replace("hidden-length, ratio: 2.0", "hidden-l1, factor: 0.5, teachers: [bert]"), encoding="utf-8")
    told = [distilled(tmp_path, "run", tiny_bert, tiny_roberta, tiny_data)]
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("teachers: [bert]", "teachers: [roberta]"), encoding="utf-8")
    told.append(distilled(tmp_path, "other", tiny_bert, tiny_roberta, tiny_data))
    assert [done.returncode for done in told] == [0, 2], told
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    assert "loss/hidden-l1" in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert "roberta is not as wide as the student" in told[1].stderr


def distilled(folder: Path, out: str, bert: Path, roberta: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """What comes of ``python my_losses.py distill``."""
    flags = {"--teachers": f"bert={bert},roberta={roberta}", "--student": "2L", "--recipe": "mine.yaml", "--data": str(data)}
    words = [word for flag in {**flags, "--device": "cpu", "--out": out}.items() for word in flag]
    return subprocess.run(
        [sys.executable, "my_losses.py", "distill", *words, "--allow-weak-teachers"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_loss_that_is_not_registered_is_unknown(recipe: Path) -> None:
    with pytest.raises(RequestError, match=r"unknown loss 'hidden-length'\n.*one of hard-labels, soft-labels, logits-mse"):
        load(recipe)
    assert "hidden-length" not in json.dumps(json_schema())


def test_loss_that_nothing_computes_is_refused_before_anything_is_trained(
    recipe: Path, request_for_lengths: TrainRequest
) -> None:
    @registered
    class Forgotten(LayerLoss):
        """A block without a term."""

        loss: Literal["forgotten"]

        def needs(self) -> frozenset[str]:
            return frozenset()

    recipe.write_text(RECIPE.replace("hidden-length, ratio: 2.0", "forgotten"), encoding="utf-8")
    try:
        with pytest.raises(TypeError, match=r"no term computes the loss 'forgotten': .* @computes\(Forgotten\)"):
            dry_plan(request_for_lengths, Events())
    finally:
        withdraw(Forgotten)


def test_block_that_does_not_say_what_it_needs_is_refused() -> None:
    class Silent(LayerLoss):
        """A block without needs."""

        loss: Literal["silent"]

    with pytest.raises(TypeError, match=r"Silent has to define needs\(\)"):
        registered(Silent)
    with pytest.raises(NotImplementedError, match="Silent does not say"):
        Silent(loss="silent").needs()
    assert Silent not in losses()


def test_name_of_a_loss_is_not_taken_twice() -> None:
    class Again(LayerLoss):
        """A block with the name of another one."""

        loss: Literal["hidden-mse"]

        def needs(self) -> frozenset[str]:
            return frozenset()

    with pytest.raises(TypeError, match="Again cannot be called 'hidden-mse': HiddenMse is"):
        registered(Again)
