"""What a recipe may say: one pydantic model per block, unknown keys refused, every key with its meaning and default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

Pooling = Literal["attention", "cls", "mean"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
NamedLayerMap = Literal["uniform", "first", "last"]
FIRST_TEACHER = "first-teacher"
SCRATCH = "scratch"


class Block(BaseModel):
    """A block of a recipe: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


def _shape(value: Any) -> str:
    return "<map>" if isinstance(value, dict) else "<list>" if isinstance(value, list) else "<name>"


LayerPairs = Annotated[
    dict[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]],
    Field(min_length=1, description="student layer: teacher layer; 0 is the embeddings, 1 the first block"),
]
TeacherLayers = Annotated[Annotated[NamedLayerMap, Tag("<name>")] | Annotated[LayerPairs, Tag("<map>")], Discriminator(_shape)]
Layers = Annotated[
    Annotated[NamedLayerMap, Tag("<name>")] | Annotated[dict[str, TeacherLayers], Field(min_length=1), Tag("<map>")],
    Discriminator(_shape),
]
LayerChoice = Annotated[
    Annotated[NamedLayerMap, Tag("<name>")] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Tag("<list>")],
    Discriminator(_shape),
]


class Cofinetune(Block):
    """How teachers without a trained head are fine-tuned together (MT-BERT, stage 1)."""

    pooling: Pooling = Field("attention", description="the pooling layer that all teachers share")
    which: Literal["bare", "all"] = Field(
        "bare", description="bare: teachers that have no trained head; all: every teacher, dropping the heads they have"
    )
    epochs: float = Field(3, gt=0, description="passes over the training split")
    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of the encoders")
    head_learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the shared head")


class Teachers(Block):
    """What happens to the teachers before anything is distilled."""

    cofinetune: Cofinetune = Field(default_factory=Cofinetune, description="the co-finetuning stage")
    labels: dict[str, list[str]] = Field(
        default_factory=dict,
        description="class names of a fine-tuned teacher in the order of its outputs, where its config does not say",
    )


class StudentInit(Block):
    """Where the student's weights come from when it is given by its size (``4L``)."""

    source: str = Field(
        FIRST_TEACHER, alias="from", description="first-teacher, the name of a teacher, or scratch (random weights)"
    )
    layers: LayerChoice = Field("first", description="which layers to copy: first, last, uniform, or a list from 1")
    weights: Literal["pretrained", "finetuned"] = Field(
        "pretrained", description="the source as it was given, or as it is after co-finetuning"
    )


class Student(Block):
    """How the student is built."""

    init: StudentInit = Field(default_factory=StudentInit, description="the source of its first weights")


class Projection(Block):
    """A learnable linear map that brings two widths together; it belongs to the objective, not to the student."""

    side: Literal["teacher", "student"] = Field("teacher", description="whose states are projected")
    share: Literal["per-layer", "per-teacher"] = Field(
        "per-layer", description="one matrix per matched pair of layers, or one per teacher"
    )


class LossBlock(Block):
    """What every loss term has."""

    weight: float = Field(1.0, ge=0, description="factor of this term in the sum")


class HardLabels(LossBlock):
    """Cross-entropy against the gold label."""

    loss: Literal["hard-labels"]


class SoftLabels(LossBlock):
    """Cross-entropy against the teachers' class distributions."""

    loss: Literal["soft-labels"]
    temperature: float = Field(1.0, gt=0, description="divides both sides' logits")
    temperature_squared: bool = Field(False, description="multiply by t², as Hinton et al. (2015) do")
    weighting: Literal["inverse-error", "uniform"] = Field(
        "inverse-error", description="per sample and teacher: 1/(1+CE of the teacher), or 1"
    )


class HiddenMse(LossBlock):
    """Mean squared error between matched hidden states, over all real tokens."""

    loss: Literal["hidden-mse"]
    projection: Projection | None = Field(
        default_factory=Projection, description="the learnable map between the widths; null for none"
    )


Loss = Annotated[HardLabels | SoftLabels | HiddenMse, Field(discriminator="loss")]


class Stage(Block):
    """One part of the training: what is minimised, and for how long."""

    name: str = Field(min_length=1, description="stands in logs and messages")
    epochs: float = Field(3, gt=0, description="passes over the training split")
    objective: list[Loss] = Field(min_length=1, description="the terms that are summed")


class Training(Block):
    """How the optimiser goes about it, in every stage."""

    learning_rate: float = Field(5e-5, gt=0, description="peak learning rate of the student")
    head_learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of a freshly made classification head")
    projection_learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate of the projections; null takes learning_rate"
    )
    batch_size: int = Field(32, ge=1, description="samples per optimiser step, over all processes")
    accumulation: int = Field(1, ge=1, description="parts that each step's batch is cut into, to save memory")
    max_length: int = Field(128, ge=4, description="tokens per text, special tokens included")
    precision: Precision = Field("auto", description="auto takes bf16 where the machine has it in hardware")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay; none on biases and norms")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of the steps in which the rate rises")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the rate falls after that")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm, student and projections together")
    evaluations_per_epoch: int = Field(1, ge=1, description="how often the dev split is scored")


class Recipe(Block):
    """A whole recipe."""

    name: str = Field(min_length=1, description="how the recipe is called")
    summary: str = Field("", description="one line for ``kdcli recipe list``")
    paper: str = Field("", description="where the method is from")
    teachers: Teachers = Field(default_factory=Teachers)
    student: Student = Field(default_factory=Student)
    layers: Layers = Field(
        "uniform", description="which teacher layer supervises which student layer, for all teachers or by name"
    )
    stages: list[Stage] = Field(min_length=1, description="trained one after the other")
    training: Training = Field(default_factory=Training)

    @field_validator("stages")
    @classmethod
    def _stage_names_differ(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must differ, found {names}")
        return stages

    def needs_teachers(self) -> bool:
        """Whether any term looks at a teacher (the plain fine-tuning baseline has none)."""
        return any(not isinstance(term, HardLabels) for stage in self.stages for term in stage.objective)
