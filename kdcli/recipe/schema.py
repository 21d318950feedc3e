"""What a recipe may say: one pydantic model per block, unknown keys refused, every key with its meaning and default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Pooling = Literal["attention", "cls", "mean"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
NamedLayerMap = Literal["uniform", "first", "last", "skip", "last-intermediate", "middle", "top", "embeddings"]
Tokens = Literal["all", "cls", "mean"]
Relation = Literal["queries", "keys", "values"]
FIRST_TEACHER = "first-teacher"
SCRATCH = "scratch"
AS_LARGE_AS_TEACHER = "teacher"
MIDWAY = "midway"
_MOST_EPOCHS = 10_000
_MOST = 1_000_000


class Block(BaseModel):
    """A block of a recipe: immutable, and strict about its keys and the types of its values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _shape(value: Any) -> str:
    if isinstance(value, dict | BaseModel):
        return "<map>"
    if isinstance(value, list):
        return "<list>"
    return "<number>" if isinstance(value, int | float) and not isinstance(value, bool) else "<name>"


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
    Annotated[Literal["first", "last", "uniform", "matched"], Tag("<name>")]
    | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Tag("<list>")],
    Discriminator(_shape),
]
HeadPairs = Annotated[
    dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
    Field(min_length=1, description="student head: teacher head, both from 1"),
]
TeacherHeads = Annotated[
    Annotated[Literal["auto", "match", "mean"], Tag("<name>")] | Annotated[HeadPairs, Tag("<map>")], Discriminator(_shape)
]
Heads = Annotated[
    Annotated[Literal["auto", "match", "mean"], Tag("<name>")]
    | Annotated[dict[str, TeacherHeads], Field(min_length=1), Tag("<map>")],
    Discriminator(_shape),
]


class Schedule(Block):
    """A value that changes while a stage is trained."""

    start: Annotated[
        Annotated[Annotated[float, Field(ge=0)], Tag("<number>")] | Annotated[Literal["share"], Tag("<name>")],
        Discriminator(_shape),
    ] = Field(
        alias="from",
        description="value at the beginning; share: the last value divided by the number of steps (or epochs) of the stage, "
        "so that a linear rise goes 1/E, 2/E, … of it, whatever the number E",
    )
    to: float = Field(ge=0, description="value at the end")
    shape: Literal["linear", "cosine", "exponential"] = Field("linear", description="how it gets from one to the other")
    begin: float = Field(0.0, ge=0, le=1, description="fraction of the stage before which it keeps its first value")
    end: float = Field(1.0, ge=0, le=1, description="fraction of the stage after which it keeps its last value")
    every: Literal["step", "epoch"] = Field("step", description="when it changes")

    @model_validator(mode="after")
    def _goes_forward(self) -> Schedule:
        if self.begin >= self.end:
            raise ValueError(f"begin must be before end, found {self.begin:g} and {self.end:g}")
        if self.shape == "exponential" and min(self.first(1), self.to) <= 0:
            raise ValueError("an exponential schedule needs values above 0 on both ends")
        return self

    def first(self, whole: int) -> float:
        """The value at the beginning of ``whole`` steps or epochs."""
        return self.to / whole if self.start == "share" else float(self.start)

    @property
    def stays_zero(self) -> bool:
        """Whether it is 0 from beginning to end."""
        return self.to == self.first(1) == 0


Number = Annotated[float, Field(ge=0)]
PositiveNumber = Annotated[float, Field(gt=0)]
Changing = Annotated[Annotated[Number, Tag("<number>")] | Annotated[Schedule, Tag("<map>")], Discriminator(_shape)]
PositiveChanging = Annotated[
    Annotated[PositiveNumber, Tag("<number>")] | Annotated[Schedule, Tag("<map>")], Discriminator(_shape)
]
Auto = Literal["auto"]
AUTO: Auto = "auto"  # a value that the plan derives from the rows, the classes, the models and the effort
Epochs = Annotated[
    Annotated[Annotated[float, Field(gt=0, le=_MOST_EPOCHS)], Tag("<number>")] | Annotated[Auto, Tag("<name>")],
    Discriminator(_shape),
]
Rate = Annotated[Annotated[PositiveNumber, Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(_shape)]
BatchSize = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=_MOST)], Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(_shape)
]
Evaluations = Annotated[
    Annotated[Annotated[float, Field(gt=0, le=_MOST)], Tag("<number>")] | Annotated[Auto, Tag("<name>")],
    Discriminator(_shape),
]
Patience = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=_MOST)], Tag("<number>")] | Annotated[Auto | None, Tag("<name>")],
    Discriminator(_shape),
]


class Cofinetune(Block):
    """How teachers without a trained head are fine-tuned together (MT-BERT, stage 1)."""

    pooling: Pooling = Field("attention", description="the pooling layer that all teachers share")
    which: Literal["bare", "all"] = Field(
        "bare", description="bare: teachers that have no trained head; all: every teacher, dropping the heads they have"
    )
    epochs: Epochs = Field(
        AUTO,
        description="passes over the training split, at the most; auto: as many as the rows, the classes and --effort ask for",
    )
    learning_rate: Rate = Field(AUTO, description="peak learning rate of the encoders; auto: of each by its width")
    learning_rates: dict[str, PositiveNumber] = Field(
        default_factory=dict, description="peak learning rates of single encoders, by the teacher's name"
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of the shared head")


class Teachers(Block):
    """What happens to the teachers before anything is distilled."""

    cofinetune: Cofinetune = Field(default_factory=Cofinetune, description="the co-finetuning stage")
    labels: dict[str, list[str]] = Field(
        default_factory=dict,
        description="class names of a fine-tuned teacher in the order of its outputs, where its config does not say",
    )
    out_of_fold: int | None = Field(
        None,
        ge=2,
        le=1000,
        description="co-finetune this many further times, each time without a part of the training rows, so that "
        "teachers are weighted by what they say of rows that they have not seen; null: weighted by what they say of rows "
        "that they were trained on",
    )


class StudentInit(Block):
    """Where the student's weights come from when it is given by its size (``4L``)."""

    source: str = Field(
        FIRST_TEACHER, alias="from", description="first-teacher, the name of a teacher, or scratch (random weights)"
    )
    layers: LayerChoice = Field(
        "first",
        description="which layers to copy: first, last, uniform, matched (those that the recipe's layer map gives the "
        "student's layers), or a list from 1",
    )
    weights: Literal["pretrained", "finetuned"] = Field(
        "pretrained", description="the source as it was given, or as it is after co-finetuning"
    )
    head: Literal["kept", "fresh"] = Field(
        "kept", description="kept: the head of a source that was given fine-tuned, or of an assistant; fresh: random weights"
    )


class Student(Block):
    """How the student is built."""

    size: str | None = Field(
        None, description="the size where --student is not given: 4L, 4L-312H, …, or teacher (as large as the first teacher)"
    )
    init: StudentInit = Field(default_factory=StudentInit, description="the source of its first weights")


class Projection(Block):
    """A learnable linear map that brings two widths together; it belongs to the objective, not to the student."""

    side: Literal["teacher", "student"] = Field("student", description="whose states are projected")
    share: Literal["per-layer", "per-teacher"] = Field(
        "per-layer", description="one matrix per matched pair of layers, or one per teacher"
    )


ProjectionChoice = Annotated[
    Annotated[Literal["auto"] | None, Tag("<name>")] | Annotated[Projection, Tag("<map>")], Discriminator(_shape)
]


class LossBlock(Block):
    """What every loss term has."""

    name: str | None = Field(None, min_length=1, pattern=r"^[\w-]+$", description="name in logs; null: that of the loss")
    weight: Changing = Field(1.0, description="factor of this term in the sum; a term of weight 0 is not computed")

    @property
    def label(self) -> str:
        """The name in logs."""
        return self.name or str(self.loss)  # type: ignore[attr-defined]

    @property
    def is_off(self) -> bool:
        """Whether its weight is 0 throughout, so that it is not computed."""
        weight = self.weight
        return weight.stays_zero if isinstance(weight, Schedule) else weight == 0


class TeacherLoss(LossBlock):
    """What every loss term has that looks at teachers."""

    teachers: list[str] | None = Field(None, min_length=1, description="names of the teachers that it looks at; null: all")
    teacher_reduction: Literal["mean", "sum"] = Field("mean", description="how the teachers' values become one")


class LayerLoss(TeacherLoss):
    """What every loss term has that compares layers."""

    layers: Layers | None = Field(
        None, description="which teacher layer supervises which student layer, for this term; null: the recipe's layers"
    )
    layer_reduction: Literal["sum", "mean"] = Field("sum", description="how the layers' values become one")


class HardLabels(LossBlock):
    """Cross-entropy against the gold label; rows without one are left out."""

    loss: Literal["hard-labels"]


class SoftLabels(TeacherLoss):
    """Distance from the teachers' class distributions."""

    loss: Literal["soft-labels"]
    divergence: Literal["cross-entropy", "kl", "reverse-kl", "js", "tv"] = Field(
        "cross-entropy",
        description="cross-entropy or KL divergence of the student from the teacher (same gradient), KL the other way round, "
        "Jensen–Shannon divergence, total variation distance",
    )
    temperature: PositiveChanging = Field(1.0, description="divides both sides' logits")
    temperature_squared: bool = Field(False, description="multiply by t², as Hinton et al. (2015) do")
    weighting: Annotated[
        Annotated[Literal["uniform", "inverse-error", "softmax-error", "confidence", "agreement", "uncertainty"], Tag("<name>")]
        | Annotated[dict[str, Number], Field(min_length=1), Tag("<map>")],
        Discriminator(_shape),
    ] = Field(
        "uniform",
        description="how much each teacher counts on a sample: uniform; inverse-error 1/(1+CE); softmax-error "
        "N·softmax over the N teachers of −CE; confidence (largest probability); agreement (1 − total variation from the "
        "mean of the others); uncertainty (unsure student: the smallest teacher, sure: the largest); or a map of "
        "teacher: weight",
    )
    normalise_weights: bool = Field(False, description="scale a sample's weights so that their mean over the teachers is 1")
    scale: Literal["none", "correctness", "agreement", "disagreement"] = Field(
        "none",
        description="a further factor per sample: correctness 1/(1+CE) of the teachers' mean distribution, the teachers' mean "
        "agreement, or disagreement (1 − agreement; 1 with a single teacher)",
    )
    unlabelled_weighting: Literal["uniform", "confidence", "agreement"] | None = Field(
        None, description="weighting on samples without a gold label; null: the same as on the others"
    )
    unlabelled_scale: Literal["none", "agreement", "disagreement"] | None = Field(
        None, description="scale on samples without a gold label; null: the same as on the others"
    )
    min_uncertainty: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="leave out samples on which the student's entropy, divided by log C, is below this",
    )
    draw: Literal["uniform", "ranked"] | None = Field(
        None, description="ask one teacher per step, drawn with equal chances or with chances by rank of dev score"
    )


class LogitsMse(TeacherLoss):
    """Mean squared difference of the logits."""

    loss: Literal["logits-mse"]
    factor: Changing = Field(1.0, description="multiplies the teacher's logits")


class HiddenMse(LayerLoss):
    """Mean squared error between matched hidden states, mean over tokens and width."""

    loss: Literal["hidden-mse"]
    tokens: Tokens = Field("all", description="all real tokens, the first one ([CLS]), or their mean")
    normalise: bool = Field(False, description="divide each state by its length first")
    projection: ProjectionChoice = Field(
        "auto", description="the learnable map between the widths; auto: on the student's side where they differ; null: none"
    )


class HiddenCosine(LayerLoss):
    """One minus the cosine of matched hidden states, mean over tokens."""

    loss: Literal["hidden-cosine"]
    tokens: Tokens = Field("cls", description="all real tokens, the first one ([CLS]), or their mean")
    projection: ProjectionChoice = Field(
        "auto", description="the learnable map between the widths; auto: on the student's side where they differ; null: none"
    )


class AttentionKl(LayerLoss):
    """KL divergence of the student's attention from the teacher's, mean over query tokens and heads."""

    loss: Literal["attention-kl"]
    heads: Heads = Field(
        "auto",
        description="match (equal numbers), mean over heads on both sides, a map of student head: teacher head under the "
        "teacher's name, or auto: match where the numbers are equal, else mean",
    )


class AttentionMse(LayerLoss):
    """Mean squared error between attention scores before the softmax, mean over heads and real cells."""

    loss: Literal["attention-mse"]
    heads: Heads = Field("auto", description="as for attention-kl")


class RelationKl(LayerLoss):
    """KL divergence between relations of tokens inside the attention, softmax(XXᵀ/√d), mean over tokens and heads."""

    loss: Literal["relation-kl"]
    relations: list[Relation] = Field(["queries", "keys", "values"], min_length=1, description="which projections X")
    relation_heads: Annotated[
        Annotated[Literal["auto"] | None, Tag("<name>")] | Annotated[int, Field(ge=1), Tag("<number>")], Discriminator(_shape)
    ] = Field(
        "auto",
        description="heads that the width is cut into for this; auto: 48 as in the paper, or the largest number below that "
        "divides both widths; null: the attention's own, which must match",
    )
    layers: Layers | None = Field("top", description="which teacher layer supervises which student layer")


class Relational(LayerLoss):
    """Distances and angles between samples, compared with the teacher's (relational knowledge distillation)."""

    loss: Literal["relational"]
    states: Literal["cls", "mean", "logits"] = Field("mean", description="what stands for a sample")
    distance_weight: float = Field(1.0, ge=0, description="factor of the distances")
    angle_weight: float = Field(2.0, ge=0, description="factor of the angles")
    group: int | None = Field(
        None,
        ge=3,
        le=_MOST,
        description="compare within groups of this many samples; null: within the whole batch, which is not cut",
    )
    layers: Layers | None = Field("top", description="which teacher layer supervises which student layer")


class RandomLayers(TeacherLoss):
    """Pooled states of teacher layers that are drawn anew every epoch, projected to a small width and normalised."""

    loss: Literal["random-layers"]
    width: int = Field(128, ge=1, le=65_536, description="width that both sides are projected to")
    form: Literal["layer-wise", "concatenated"] = Field(
        "layer-wise", description="compare layer by layer, or all in one vector"
    )


LayeredLoss = HiddenMse | HiddenCosine | AttentionKl | AttentionMse | RelationKl | Relational
Loss = Annotated[
    HardLabels
    | SoftLabels
    | LogitsMse
    | HiddenMse
    | HiddenCosine
    | AttentionKl
    | AttentionMse
    | RelationKl
    | Relational
    | RandomLayers,
    Field(discriminator="loss"),
]


class Until(Block):
    """A rule for moving on before the epochs are over."""

    loss: str = Field(min_length=1, description="name of a term of the stage")
    below: float = Field(gt=0, description="move on when its value, mean over teachers and layers, unweighted, is below this")
    window: float = Field(0.1, gt=0, le=1, description="epochs over which the value is averaged, and between two looks at it")


class Stage(Block):
    """One part of the training: what is minimised, for how long, and what moves."""

    name: str = Field(min_length=1, description="stands in logs and messages")
    epochs: Epochs = Field(
        AUTO,
        description="passes over the training split; auto: as many as the rows and --effort ask for, shared by all stages "
        "that say so",
    )
    objective: list[Loss] = Field(min_length=1, description="the terms that are summed")
    expand: Literal["progressive", "stacked"] | None = Field(
        None,
        description="one stage per student layer, from the bottom up: with the losses of that layer alone (progressive) or of "
        "all layers up to it (stacked); losses without layers stay",
    )
    until: Until | None = Field(None, description="a rule for moving on earlier")
    freeze: list[
        Annotated[
            Annotated[Literal["embeddings", "head"], Tag("<name>")] | Annotated[int, Field(ge=1), Tag("<number>")],
            Discriminator(_shape),
        ]
    ] = Field(
        default_factory=list, description="parts of the student that stay as they are: embeddings, head, numbers of layers"
    )
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate of the student; null: training's")
    warmup: float | None = Field(
        None, ge=0, lt=1, description="fraction of the steps in which the rate rises; null: training's"
    )
    schedule: Literal["linear", "cosine", "constant"] | None = Field(
        None, description="how the rate falls after that; null: training's"
    )


Copies = Annotated[
    Annotated[Annotated[int, Field(ge=0, le=1000)], Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(_shape)
]


class Augmentation(Block):
    """Further texts for the student, made from the training texts and answered by the teachers."""

    copies: Copies = Field(0, description="texts made from each training text; auto: more where there are few rows; 0: none")
    methods: list[Literal["mix", "join", "replace", "drop"]] = Field(
        ["mix", "join", "replace", "drop"],
        min_length=1,
        description="one is drawn for each text: mix (the beginning of one and the end of another), join (a half of one and a "
        "half of another), replace (some words by words of other texts), drop (without some words)",
    )
    share: float = Field(0.2, gt=0, lt=1, description="of the words that are replaced or left out")


class Optimizer(Block):
    """The optimiser."""

    name: Literal["adamw", "adafactor", "sgd"] = Field("adamw", description="which one, as torch implements it")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the first moment; SGD's momentum")
    beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's decay of the second moment")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon")


class Training(Block):
    """How the optimiser goes about it, in every stage."""

    learning_rate: Rate = Field(
        AUTO, description="peak learning rate of the student; auto: by its width and by whether its weights are random"
    )
    head_learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of a freshly made classification head")
    projection_learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate of the projections; null takes learning_rate"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the rate from each layer to the one below it; embeddings are the lowest"
    )
    optimizer: Optimizer = Field(default_factory=Optimizer, description="the optimiser and its constants")
    batch_size: BatchSize = Field(AUTO, description="samples per optimiser step, over all processes; auto: by the rows")
    accumulation: int = Field(1, ge=1, le=_MOST, description="parts that each step's batch is cut into, to save memory")
    max_length: int = Field(128, ge=4, le=_MOST, description="tokens per text, special tokens included")
    precision: Precision = Field("auto", description="auto takes bf16 where the machine has it in hardware")
    weight_decay: float = Field(0.01, ge=0, description="decay of the weights; none on biases and norms")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of the steps in which the rate rises")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the rate falls after that")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm, student and projections together")
    evaluations_per_epoch: Evaluations = Field(
        1.0,
        description="how often the dev split is scored; 0.5 is every second epoch; auto: 15 times in a stage of many epochs",
    )
    keep: Literal["best", "latest"] = Field(
        "best",
        description="which weights of the last stage are kept: best (the highest dev score), or latest (the latest whose dev "
        "score is within one standard error of the highest: where dev is small, the highest is often luck)",
    )
    early_stopping: Patience = Field(
        None,
        description="end the last stage after this many evaluations on dev without a new best; auto: a third of the stage's; "
        "null: never",
    )


class Recipe(Block):
    """A whole recipe."""

    name: str = Field(min_length=1, description="how the recipe is called")
    summary: str = Field("", description="one line for ``kdcli recipe list``")
    paper: str = Field("", description="where the method is from")
    teachers: Teachers = Field(default_factory=Teachers, description="what happens to the teachers first")
    assistants: list[str] = Field(
        default_factory=list,
        description="students on the way, each trained by the one before it and teaching the next, the last one the student: "
        "sizes (8L), or midway (as deep as half-way between its teacher and the student)",
    )
    student: Student = Field(default_factory=Student, description="how the student is built")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="further texts made from the training texts")
    layers: Layers = Field(
        "uniform",
        description="which teacher layer supervises which student layer, for all teachers or by name: uniform (j to j·T/K), "
        "first, last, skip (uniform without the top), last-intermediate (the last K−1 below the top), middle, top, "
        "embeddings, or pairs of student layer: teacher layer",
    )
    stages: list[Stage] = Field(min_length=1, description="trained one after the other")
    training: Training = Field(default_factory=Training, description="how the optimiser goes about it")

    @field_validator("stages")
    @classmethod
    def _stage_names_differ(cls, stages: list[Stage]) -> list[Stage]:
        names = [stage.name for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stage names must differ, found {names}")
        return stages

    def terms(self) -> Iterator[LossBlock]:
        """Every term of every stage that is not switched off."""
        return (term for stage in self.stages for term in stage.objective if not term.is_off)

    def needs_teachers(self) -> bool:
        """Whether any term looks at a teacher (the plain fine-tuning baseline has none)."""
        return any(isinstance(term, TeacherLoss) for term in self.terms())

    def weights_by_error(self) -> bool:
        """Whether a term weights its teachers by their errors on gold labels."""
        return any(isinstance(term, SoftLabels) and bool(by_error(term)) for term in self.terms())


_Settled = TypeVar("_Settled", int, float)


def settled(value: _Settled | Auto) -> _Settled:
    """A value of a plan's recipe, where nothing is left to be derived."""
    assert not isinstance(value, str)
    return value


def by_error(term: SoftLabels) -> list[str]:
    """The keys by which a term looks at the teachers' errors on gold labels; none if it does not."""
    asks = {"weighting": term.weighting in ("inverse-error", "softmax-error"), "scale": term.scale == "correctness"}
    return [key for key, asked in asks.items() if asked]


def by_error_without_labels(term: SoftLabels) -> list[str]:
    """Those of :func:`by_error` that say nothing of what to do with samples without a gold label."""
    return [key for key in by_error(term) if getattr(term, f"unlabelled_{key}") is None]
