"""A small distillation phase, put together as the distill job does it: a 2-layer student learns from two unlike teachers."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig

from kdcli.data.alignment import align
from kdcli.data.batching import Batch, Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.engine import checkpoint
from kdcli.engine.events import Event, Events, StepDone
from kdcli.engine.loop import Trainer
from kdcli.engine.objective import ParameterKind
from kdcli.engine.optimisation import RateSchedule
from kdcli.engine.runtime import make_accelerator
from kdcli.engine.stages import Phase, Scores, Stage
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
from kdcli.losses.term import Term
from kdcli.models.head import SharedHead
from kdcli.models.output import Output, Wanted
from kdcli.models.student import STUDENT, Size, StudentLearner, build_student, student_config
from kdcli.models.teachers import Ensemble, Teacher
from kdcli.models.weight_loading import load_encoder, load_tokenizer
from kdcli.plan.plan import StagePlan
from kdcli.recipe.blocks import Schedule
from kdcli.recipe.schema import Training, Until

Terms = Callable[[Projections], list[Term]]
T = TypeVar("T", bound=Event)
LABELS = ("negative", "positive")
WIDTHS = {"bert": 32, "roberta": 48}
DEPTHS = {"bert": 4, "roberta": 6}
PAIRS = {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}}
RATES: dict[ParameterKind, float] = {"body": 5e-4, "head": 2e-3, "projection": 1e-3}
TRAIN_ROWS, DEV_ROWS, BATCH_SIZE = 48, 20, 8
PER_EPOCH = TRAIN_ROWS // BATCH_SIZE


@dataclass(frozen=True)
class Material:
    """What every phase of the tests is made of; the folders of two encoders and of the task's data."""

    bert: Path
    roberta: Path
    data: Path


@cache
def split(material: Material, name: str, rows: int) -> Split:
    """The first rows of one split."""
    lines = (material.data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    found = [json.loads(line) for line in lines]
    labels = np.array([LABELS.index(row["label"]) for row in found], dtype=np.int64)
    return Split([row["text"] for row in found], None, labels, name, name)


@cache
def train_samples(material: Material) -> Samples:
    """The training split as student and teachers see it."""
    own = tokenise(split(material, "train", TRAIN_ROWS), load_tokenizer(material.bert), 24)
    other = tokenise(split(material, "train", TRAIN_ROWS), load_tokenizer(material.roberta), 24)
    views = {STUDENT: own, "bert": own, "roberta": other}
    return Samples(
        split(material, "train", TRAIN_ROWS).targets, views, {name: align(own, views[name]) for name in WIDTHS}, STUDENT
    )


@cache
def dev_samples(material: Material) -> Samples:
    """The dev split as the student sees it."""
    dev = split(material, "dev", DEV_ROWS)
    return Samples(dev.targets, {STUDENT: tokenise(dev, load_tokenizer(material.bert), 24)}, {}, STUDENT)


@cache
def ensemble(material: Material) -> Ensemble:
    """Two frozen teachers under a shared head of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        head = SharedHead(WIDTHS, len(LABELS), "attention")
    folders = {"bert": material.bert, "roberta": material.roberta}
    teachers = [Teacher(name, load_encoder(folder), [0, 1], head) for name, folder in folders.items()]
    return Ensemble(teachers)


@dataclass
class Listening:
    """Teachers that remember what they were asked about which rows."""

    teachers: Ensemble
    asked: list[tuple[list[int], dict[str, Wanted]]] = field(default_factory=list)

    def __call__(self, batch: Batch, needs: Mapping[str, Wanted]) -> dict[str, Output]:
        """Remember, and let the teachers answer."""
        self.asked.append((batch.rows.tolist(), dict(needs)))
        return self.teachers(batch, needs)  # type: ignore[no-any-return]


def student(material: Material, seed: int, dropout: float = 0.0) -> StudentLearner:
    """A student of two layers of the BERT teacher."""
    config = student_config(AutoConfig.from_pretrained(material.bert), Size(2), [1, 2], LABELS)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    built = build_student(config, material.bert, [1, 2], seed)
    return StudentLearner(built.model, built.fresh)


def all_terms(bank: Projections) -> list[Term]:
    """The three terms of MT-BERT."""
    return [HardLabelsTerm(), SoftLabelsTerm(list(PAIRS)), HiddenMseTerm(PAIRS, 32, WIDTHS, bank, "teacher", weight=0.5)]


def labels_alone(_: Projections) -> list[Term]:
    """No teacher at all."""
    return [HardLabelsTerm()]


def every_loss(bank: Projections, group: int | None = 3) -> list[Term]:
    """Every loss that there is, together."""
    return [
        HardLabelsTerm(weight=0.5),
        SoftLabelsTerm(list(PAIRS), temperature=2.0, weighting="inverse-error"),
        LogitsMseTerm(list(PAIRS)),
        HiddenMseTerm(PAIRS, 32, WIDTHS, bank, {"roberta": "student"}),
        HiddenCosineTerm(PAIRS, 32, WIDTHS, bank, "teacher", tokens="cls"),
        AttentionKlTerm(PAIRS),
        AttentionMseTerm(PAIRS, {"bert": "mean", "roberta": {1: 4, 3: 2}}),
        RelationKlTerm(PAIRS, relation_heads=16),
        RelationalTerm(PAIRS, group=group),
        RandomLayersTerm(2, 32, DEPTHS, WIDTHS, bank, width=16),
    ]


def changing(start: float, to: float, **more: Any) -> Schedule:
    """A value that goes from one to another over a stage."""
    return Schedule.model_validate({"from": start, "to": to, **more})


def dev_scores(material: Material) -> Callable[[Mapping[str, NDArray[np.float32]]], Scores]:
    """Accuracy on the dev split by model."""
    labels = split(material, "dev", DEV_ROWS).targets
    assert labels is not None
    return lambda logits: {name: {"accuracy": float((values.argmax(-1) == labels).mean())} for name, values in logits.items()}


@dataclass(frozen=True)
class Part:
    """A stage that has no terms yet; None stands for those of the phase."""

    steps: int
    terms: Terms | None = None
    rates: Mapping[ParameterKind, float] = field(default_factory=lambda: RATES)
    warmup: float | None = None
    schedule: RateSchedule | None = None
    freeze: Sequence[int | str] = ()
    until: Until | None = None


def stage(row: int, steps: int, terms: Sequence[Term], **more: Any) -> Stage:
    """A stage of so many steps."""
    about = {"learning_rates": RATES, "warmup": 0.1, "schedule": "linear", **more}
    return Stage(StagePlan(phase="distill", name=f"stage-{row}", epochs=1.0, steps=steps, terms=[], **about), terms)


def phase(
    material: Material,
    parts: Sequence[int | Part] = (6,),
    seed: int = 0,
    dropout: float = 0.0,
    terms: Terms = all_terms,
    teachers: bool = True,
    warmup: float = 0.1,
    schedule: RateSchedule = "linear",
) -> Phase:
    """A phase of one stage per part, a number being its steps; projections start from the seed.

    Parts that do not say how their rates rise and fall take ``warmup`` and ``schedule``.
    """
    torch.manual_seed(seed)
    bank = Projections()
    stages = []
    for row, given in enumerate(parts):
        part = given if isinstance(given, Part) else Part(given)
        rising = {"warmup": warmup if part.warmup is None else part.warmup, "schedule": part.schedule or schedule}
        about = {"learning_rates": part.rates, "freeze": part.freeze, "until": part.until, **rising}
        stages.append(stage(row, part.steps, (part.terms or terms)(bank), **about))
    return Phase(
        name="distill",
        title="distilling",
        learner=student(material, seed, dropout),
        stages=stages,
        train=train_samples(material),
        dev=dev_samples(material),
        ensemble=ensemble(material) if teachers else None,
        score=dev_scores(material),
        metric="accuracy",
        seed=seed,
        projections=bank,
    )


def settings(**changes: Any) -> Training:
    """The training block, on small batches."""
    return Training(**{"batch_size": BATCH_SIZE, "precision": "fp32", "evaluations_per_epoch": 3, **changes})


@dataclass
class Told:
    """Remembers every event, and does something at one of them if asked to."""

    at: Callable[[Event], None] = lambda event: None
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Listen."""
        self.events.append(event)
        self.at(event)

    def of(self, kind: type[T]) -> list[T]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def trainer(folder: Path, told: Told | None = None, **changes: Any) -> Trainer:
    """A trainer on the CPU whose checkpoints go into the folder."""
    return Trainer(make_accelerator("fp32", "cpu"), settings(**changes), Events([told] if told else []), folder / "checkpoints")


def stopping_at(step: int, times: int = 1) -> Told:
    """A listener that interrupts the run when a step is done."""

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return Told(interrupt)


def checkpoint_weights(folder: Path) -> dict[str, Tensor]:
    """What the checkpoint of the last step holds."""
    state = checkpoint.load(folder / "checkpoints" / "distill")
    assert state is not None
    return state.objective


def weights(trained: Phase) -> dict[str, Tensor]:
    """Learner and projections, copied."""
    found = {name: tensor.detach().clone() for name, tensor in trained.learner.state_dict().items()}
    maps = trained.projections.state_dict()
    return found | {f"projections.{name}": tensor.detach().clone() for name, tensor in maps.items()}


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 0.0) -> list[str]:
    """Names of the tensors that are further apart than the tolerance."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.allclose(one[name], other[name], rtol=0.0, atol=tolerance)]
