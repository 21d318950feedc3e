"""A small distillation phase, put together as the distill job does it: a 2-layer student learns from two unlike teachers."""

from __future__ import annotations

import json
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
from kdcli.data.batching import Samples
from kdcli.data.task import Split
from kdcli.data.tokens import tokenise
from kdcli.engine.events import Event, Events
from kdcli.engine.loop import Phase, Scores, Stage, Trainer
from kdcli.engine.objective import ParameterKind
from kdcli.engine.runtime import make_accelerator
from kdcli.evaluation.metrics import scores
from kdcli.losses.hidden import HiddenMseTerm
from kdcli.losses.labels import HardLabelsTerm, SoftLabelsTerm
from kdcli.losses.term import Term
from kdcli.models.head import SharedHead
from kdcli.models.loading import load_encoder, load_tokenizer
from kdcli.models.student import STUDENT, Size, StudentLearner, build_student, student_config
from kdcli.models.teachers import Ensemble, Teacher
from kdcli.recipe.schema import Training

T = TypeVar("T", bound=Event)
LABELS = ("negative", "positive")
WIDTHS = {"bert": 32, "roberta": 48}
PAIRS = {"bert": {1: 2, 2: 4}, "roberta": {1: 3, 2: 6}}
RATES: dict[ParameterKind, float] = {"body": 5e-4, "head": 2e-3, "projection": 1e-3}
TRAIN_ROWS, DEV_ROWS, BATCH_SIZE = 48, 20, 8


@dataclass(frozen=True)
class Material:
    """What every phase of a test session is made of; the folders of two encoders and of the task's data."""

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
        split(material, "train", TRAIN_ROWS).labels, views, {name: align(own, views[name]) for name in WIDTHS}, STUDENT
    )


@cache
def dev_samples(material: Material) -> Samples:
    """The dev split as the student sees it."""
    dev = split(material, "dev", DEV_ROWS)
    return Samples(dev.labels, {STUDENT: tokenise(dev, load_tokenizer(material.bert), 24)}, {}, STUDENT)


@cache
def ensemble(material: Material) -> Ensemble:
    """Two frozen teachers under a shared head of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        head = SharedHead(WIDTHS, len(LABELS), "attention")
    folders = {"bert": material.bert, "roberta": material.roberta}
    teachers = [Teacher(name, load_encoder(folder), [0, 1], head) for name, folder in folders.items()]
    return Ensemble(teachers, {name: rows.values() for name, rows in PAIRS.items()})


def student(material: Material, seed: int, dropout: float = 0.0) -> StudentLearner:
    """A student of two layers of the BERT teacher."""
    config = student_config(AutoConfig.from_pretrained(material.bert), Size(2), [1, 2], LABELS)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    built = build_student(config, material.bert, [1, 2], seed)
    return StudentLearner(built.model, [1, 2], built.fresh)


def all_terms(seed: int = 0) -> list[Term]:
    """The three terms of MT-BERT; projections start from the seed."""
    torch.manual_seed(seed)
    return [HardLabelsTerm(), SoftLabelsTerm(list(PAIRS)), HiddenMseTerm(PAIRS, 32, WIDTHS, weight=0.5)]


def dev_scores(material: Material) -> Callable[[Mapping[str, NDArray[np.float32]]], Scores]:
    """Scores of the dev split by model."""
    labels = split(material, "dev", DEV_ROWS).labels
    assert labels is not None
    return lambda logits: {name: scores(values, labels, len(LABELS)) for name, values in logits.items()}


def phase(
    material: Material,
    steps: Sequence[int] = (6,),
    seed: int = 0,
    dropout: float = 0.0,
    terms: Callable[[], list[Term]] | None = None,
    teachers: bool = True,
) -> Phase:
    """A phase of one stage per entry of ``steps``."""
    make = terms or (lambda: all_terms(seed))
    return Phase(
        name="distill",
        title="distilling",
        learner=student(material, seed, dropout),
        stages=[Stage(f"stage-{row}", count, make(), RATES) for row, count in enumerate(steps)],
        train=train_samples(material),
        dev=dev_samples(material),
        ensemble=ensemble(material) if teachers else None,
        score=dev_scores(material),
        metric="accuracy",
        seed=seed,
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


def weights(trained: Phase) -> dict[str, Tensor]:
    """Learner and projections of all stages, copied."""
    found = {name: tensor.detach().clone() for name, tensor in trained.learner.state_dict().items()}
    for row, stage in enumerate(trained.stages):
        for place, term in enumerate(stage.terms):
            found |= {f"{row}.{place}.{name}": tensor.detach().clone() for name, tensor in term.state_dict().items()}
    return found


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor], tolerance: float = 0.0) -> list[str]:
    """Names of the tensors that are further apart than the tolerance."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.allclose(one[name], other[name], rtol=0.0, atol=tolerance)]
