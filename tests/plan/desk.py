"""Where recipes are held against models: whole checkpoints with data beside them, or configurations and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AlbertConfig,
    BertConfig,
    ConvBertConfig,
    DebertaV2Config,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    SqueezeBertConfig,
)

from kdcli.data.task import Task
from kdcli.errors import Problem, RequestError
from kdcli.models.checkpoints import parse_references
from kdcli.plan.plan import HopPlan, Plan, StagePlan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import check_recipe, make_plan
from kdcli.plan.settings import load_recipe, on_this_machine
from kdcli.recipe.loading import loads
from kdcli.recipe.yaml_document import Override

ORIGIN = "mine.yaml"
Maps = dict[str, dict[int, int]]
_KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "bert": (BertConfig, {}),
    "roberta": (RobertaConfig, {"pad_token_id": 1, "max_position_embeddings": 130}),
    "electra": (ElectraConfig, {"embedding_size": 16}),
    "albert": (AlbertConfig, {"embedding_size": 16, "num_hidden_groups": 1}),
    "mpnet": (MPNetConfig, {"pad_token_id": 1, "max_position_embeddings": 130}),
    "deberta-v2": (
        DebertaV2Config,
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "type_vocab_size": 0},
    ),
    "convbert": (ConvBertConfig, {}),
    "squeezebert": (SqueezeBertConfig, {"embedding_size": 32}),
    "modernbert": (ModernBertConfig, {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3}),
}


class Desk:
    """Plans for one task, from a recipe's text and flags, with the tiny teachers."""

    def __init__(self, folder: Path, task: Task, bert: Path, roberta: Path) -> None:
        self.folder, self.task, self.models = folder, task, (bert, roberta)
        self.both = f"bert={bert},roberta={roberta}"
        self.path = folder / "mine.yaml"

    def plan(self, recipe: str, *flags: str, student: str | None = "2L", teachers: str | None = None, **more: Any) -> Plan:
        """The plan for a recipe's text; ``more`` are fields of the request."""
        self.path.write_text(recipe, encoding="utf-8")
        return self.plan_of(str(self.path), *flags, student=student, teachers=teachers, **more)

    def plan_of(
        self,
        name: str,
        *flags: str,
        student: str | None = "2L",
        teachers: str | None = None,
        task: Task | None = None,
        **more: Any,
    ) -> Plan:
        """The plan for a recipe by its name or path."""
        named = teachers or self.both
        overrides = tuple(Override.parse(flag) for flag in flags)
        asked: dict[str, Any] = {"command": "distill", "device": "cpu", **more}
        request = TrainRequest(teachers=named, student=student, recipe=name, overrides=overrides, **asked)
        references = parse_references(named, "--teachers")
        return make_plan(
            on_this_machine(request, load_recipe(request)), task or self.task, references, starter=False, sized=False
        )

    def refused(self, recipe: str, *flags: str, **more: Any) -> tuple[Problem, ...]:
        """The problems for which a recipe's text is refused."""
        with pytest.raises(RequestError) as caught:
            self.plan(recipe, *flags, **more)
        return caught.value.problems

    def line(self, number: int) -> str:
        """A line of the recipe's file, as messages name it."""
        return f"{self.path}:{number}"


@dataclass(frozen=True)
class Shelf:
    """Checkpoints that are nothing but a ``config.json``, made when they are asked for."""

    folder: Path

    def model(self, kind: str = "bert", layers: int = 4, width: int = 32, heads: int = 4) -> Path:
        """The folder of a model of that kind and size."""
        folder = self.folder / f"{kind}-{layers}-{width}-{heads}"
        if not folder.is_dir():
            make, more = _KINDS[kind]
            size = {"num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads}
            common = {"intermediate_size": 2 * width, "vocab_size": 100, "max_position_embeddings": 128}
            make(**{**size, **common, **more}).save_pretrained(folder)
        return folder

    def two(self) -> dict[str, Path]:
        """A BERT of 4 layers and width 32 and a RoBERTa of 6 layers and width 48, with 4 heads each."""
        return {"bert": self.model(), "roberta": self.model("roberta", 6, 48)}

    def one(self) -> dict[str, Path]:
        """The BERT alone."""
        return {"bert": self.model()}

    def check(
        self,
        text: str,
        *flags: str,
        teachers: Mapping[str, Path] | None = None,
        student: str | None = "2L",
        origin: str = ORIGIN,
    ) -> list[HopPlan]:
        """The trainings that a recipe's text stands for, with both teachers unless others are named."""
        loaded = loads(text, origin, [Override.parse(flag) for flag in flags])
        hops, _ = check_recipe(loaded, parse_references(named(teachers or self.two()), "--teachers"), student)
        return hops

    def stages(
        self, text: str, *flags: str, teachers: Mapping[str, Path] | None = None, student: str | None = "2L"
    ) -> list[StagePlan]:
        """The stages of a recipe that has a single training."""
        (hop,) = self.check(text, *flags, teachers=teachers, student=student)
        return hop.stages

    def problems(
        self,
        text: str,
        *flags: str,
        teachers: Mapping[str, Path] | None = None,
        student: str | None = "2L",
        origin: str = ORIGIN,
    ) -> tuple[Problem, ...]:
        """The problems for which a recipe's text is refused; none if it is right."""
        try:
            self.check(text, *flags, teachers=teachers, student=student, origin=origin)
        except RequestError as error:
            return error.problems
        return ()

    def refused(
        self, text: str, *flags: str, teachers: Mapping[str, Path] | None = None, student: str | None = "2L"
    ) -> tuple[Problem, ...]:
        """The problems for which a recipe's text is refused; there must be some."""
        found = self.problems(text, *flags, teachers=teachers, student=student)
        assert found, "the recipe was not refused"
        return found


def named(teachers: Mapping[str, Path]) -> str:
    """Teachers as ``--teachers`` takes them."""
    return ",".join(f"{name}={path}" for name, path in teachers.items())


def maps_of(stage: StagePlan) -> dict[str, Maps]:
    """The layer maps of a stage, by the names of its losses."""
    return {term.loss.label: term.layers for term in stage.terms}


def labels_of(stages: Sequence[StagePlan]) -> list[tuple[str, list[str]]]:
    """The stages' names, each with the names of its losses."""
    return [(stage.name, [term.loss.label for term in stage.terms]) for stage in stages]
