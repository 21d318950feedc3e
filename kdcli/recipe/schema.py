"""What a recipe may say: one pydantic model per block, unknown keys refused, every key with its meaning and default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

from pydantic import Discriminator, Field, Tag, field_validator

from kdcli.recipe.blocks import MOST, Block, PositiveNumber, form_of
from kdcli.recipe.layer_maps import Layers
from kdcli.recipe.loss import LossBlock, TeacherLoss
from kdcli.recipe.loss_blocks import Loss

Pooling = Literal["attention", "cls", "mean"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FIRST_TEACHER = "first-teacher"
SCRATCH = "scratch"
AS_LARGE_AS_TEACHER = "teacher"
MIDWAY = "midway"
_MOST_EPOCHS = 10_000


LayerChoice = Annotated[
    Annotated[Literal["first", "last", "uniform", "matched"], Tag("<name>")]
    | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1), Tag("<list>")],
    Discriminator(form_of),
]
Auto = Literal["auto"]
AUTO: Auto = "auto"  # a value that the plan derives from the rows, the classes, the models and the effort
Epochs = Annotated[
    Annotated[Annotated[float, Field(gt=0, le=_MOST_EPOCHS)], Tag("<number>")] | Annotated[Auto, Tag("<name>")],
    Discriminator(form_of),
]
Rate = Annotated[Annotated[PositiveNumber, Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(form_of)]
BatchSize = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=MOST)], Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(form_of)
]
Evaluations = Annotated[
    Annotated[Annotated[float, Field(gt=0, le=MOST)], Tag("<number>")] | Annotated[Auto, Tag("<name>")],
    Discriminator(form_of),
]
Patience = Annotated[
    Annotated[Annotated[int, Field(ge=1, le=MOST)], Tag("<number>")] | Annotated[Auto | None, Tag("<name>")],
    Discriminator(form_of),
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
            Discriminator(form_of),
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
    Annotated[Annotated[int, Field(ge=0, le=1000)], Tag("<number>")] | Annotated[Auto, Tag("<name>")], Discriminator(form_of)
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
    accumulation: int = Field(1, ge=1, le=MOST, description="parts that each step's batch is cut into, to save memory")
    max_length: int = Field(128, ge=4, le=MOST, description="tokens per text, special tokens included")
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


class Assistant(Block):
    """A student on the way from the teachers to the student."""

    size: str = Field(
        description="8L; midway: as deep as half-way between its teacher and the student; teacher: as its teacher"
    )
    epochs: float = Field(1.0, gt=0, le=100, description="how long it is trained: times the epochs of the recipe's stages")


class Recipe(Block):
    """A whole recipe."""

    name: str = Field(min_length=1, description="how the recipe is called")
    summary: str = Field("", description="one line for ``kdcli recipe list``")
    paper: str = Field("", description="where the method is from")
    teachers: Teachers = Field(default_factory=Teachers, description="what happens to the teachers first")
    assistants: list[Annotated[Annotated[str, Tag("<name>")] | Annotated[Assistant, Tag("<map>")], Discriminator(form_of)]] = (
        Field(
            default_factory=list,
            description="students on the way, each trained by the one before it and teaching the next, the last one the "
            "student: sizes (8L), midway (as deep as half-way between its teacher and the student), teacher (as deep as its "
            "teacher; nobody where the student is so itself), or maps of size and epochs",
        )
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
        return any(term.by_error() for term in self.terms())


_Settled = TypeVar("_Settled", int, float)


def settled(value: _Settled | Auto) -> _Settled:
    """A value of a plan's recipe, where nothing is left to be derived."""
    assert not isinstance(value, str)
    return value
