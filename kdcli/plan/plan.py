"""The plan: a request with every number resolved, as it is shown by ``--dry-run`` and kept in ``plan.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from kdcli.recipe.schema import Recipe, Until
from kdcli.recipe.term_plan import TermPlan
from kdcli.tasks.kind import Kind
from kdcli.tasks.kinds import kinds

TeacherKind = Literal["cofinetune", "cofinetuned", "finetuned", "assistant"]
COFINETUNE = "cofinetune"
DISTILL = "distill"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherPlan(_Part):
    """One teacher.

    Attributes:
        kind: ``cofinetune`` (a bare encoder, to be trained here), ``cofinetuned`` (with a shared head on disk),
            ``finetuned`` (with its own head) or ``assistant`` (a student of this run that teaches the next one).
        order: for each class of the task, the index of the teacher's output; None before co-finetuning.
        parameters: of all that its outputs come from, its head among them.
        same_tokens: its tokenizer is the student's.
    """

    name: str
    kind: TeacherKind
    reference: str
    folder: str
    model_type: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    parameters: int
    order: list[int] | None
    fingerprint: str
    same_tokens: bool = False


class StudentPlan(_Part):
    """The student.

    Attributes:
        reference: as the user asked for it.
        kind: whether it is cut from a teacher, is a checkpoint, or begins with random weights.
        source: name of the teacher that it is cut from; else the kind.
        source_folder: where the copied weights are (pre-trained ones), or None.
        copied_layers: for student layer 1, 2, … the source's layer.
        own_classes: what the head of its checkpoint tells apart, in output order; None where there is no such head.
        head_order: for each class of the task, the output of that head that is kept for it; None for a fresh head.
        parameters: of the whole model with its head.
        layer_parameters: of the transformer blocks alone.
    """

    reference: str
    kind: Literal["teacher", "checkpoint", "scratch"]
    source: str
    source_folder: str | None
    tokenizer_folder: str
    weights: Literal["pretrained", "finetuned"]
    copied_layers: list[int]
    own_classes: list[str] | None = None
    head_order: list[int] | None = None
    model_type: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    parameters: int
    layer_parameters: int

    @model_validator(mode="before")
    @classmethod
    def _with_kind(cls, given: Any) -> Any:
        """Plans of earlier versions have no kind."""
        if isinstance(given, dict) and "kind" not in given and "source" in given:
            kind = given["source"] if given["source"] in ("checkpoint", "scratch") else "teacher"
            return {"kind": kind, **given}
        return given

    @property
    def cut_from(self) -> str | None:
        """Name of the teacher that it is cut from, if it is."""
        return self.source if self.kind == "teacher" else None


class StagePlan(_Part):
    """One stage of training.

    Attributes:
        phase: which training it is part of: ``cofinetune``, ``distill``, or the name of an assistant.
        steps: optimiser steps, at the most.
        learning_rates: peak rates of the pre-trained parts, of fresh heads, and of projections.
        teacher_rates: peak rates of the pre-trained parts of teachers that have one of their own, by name.
        warmup, schedule: how the rates rise and fall.
        terms: the terms of the objective.
        freeze: what of the student stays as it is by the recipe's wish.
        moves: what of the student the terms reach and the recipe does not freeze: ``embeddings``, layers, ``head``.
        until: a rule for moving on earlier.
    """

    phase: str
    name: str
    epochs: float
    steps: int
    learning_rates: dict[Literal["body", "head", "projection"], float]
    teacher_rates: dict[str, float] = {}
    warmup: float
    schedule: Literal["linear", "cosine", "constant"]
    terms: list[TermPlan]
    freeze: list[int | str] = []
    moves: list[int | str] = []
    until: Until | None = None


class HopPlan(_Part):
    """The training of one student: an assistant's, or the student's own.

    Attributes:
        name: ``distill`` for the student, else the assistant's name as a teacher of the next.
        teachers: names of those that it learns from.
    """

    name: str
    student: StudentPlan
    teachers: list[str]
    stages: list[StagePlan]


class SplitPlan(_Part):
    """One split of the task."""

    rows: int
    source: str
    fingerprint: str


class ColumnsPlan(_Part):
    """The columns of the data.

    Attributes:
        text, pair, label: what is taken as the text, the second text and the class.
        given: those of them that were named by the user or by a known task; the others were guessed by their names.
        left_out: columns that are not used.
    """

    text: str
    pair: str | None
    label: str | None
    given: list[str]
    left_out: list[str]


class TaskPlan(_Part):
    """The task; ``columns`` is not there in plans of earlier versions.

    Attributes:
        kind: which kind of task it is.
        labels: what the outputs of a model are called: the classes.
    """

    name: str
    kind: str = "classification"
    labels: list[str]
    metric: str
    pairs: bool
    starter: bool
    splits: dict[str, SplitPlan]
    notes: list[str]
    columns: ColumnsPlan | None = None

    def known(self) -> Kind:
        """The task as far as the plan says what it is."""
        return kinds()[self.kind].of_names(self.labels)


class Estimate(_Part):
    """Rough cost on this machine; from the sizes, the mean text length and a short matrix product, not from a run.

    Attributes:
        memory_bytes: largest resident memory of models, optimiser and activations.
        seconds: of the training stages.
        tokens_per_sample: mean length of a text in student tokens (teacher tokens without a student).
        disk_bytes: of the teachers' kept answers, if there is room for all of them.
    """

    memory_bytes: int
    seconds: float
    tokens_per_sample: float
    disk_bytes: int = 0


class DerivedPlan(_Part):
    """A value that the recipe leaves open (``auto``), as it was derived.

    Attributes:
        key: where in the recipe.
        value: what was put there.
        why: by what.
    """

    key: str
    value: float | int
    why: str


class Plan(_Part):
    """Everything that a run will do.

    Attributes:
        teachers: those that were given, then the assistants.
        cofinetune: stages in which the bare teachers are trained.
        hops: the trainings of the assistants in order, then that of the student; none when teachers alone are trained.
        alone: the student as it is without anybody who teaches it, cut from a given teacher; for the baseline.
        precision: what the training computes in.
        processes: how many share each batch; another number draws other dropout.
        notes: what the user should know before it begins.
        derived: the values of the recipe that it leaves open, which are numbers in ``recipe``.
    """

    format: Literal[2] = 2
    request: dict[str, Any]
    recipe: Recipe
    task: TaskPlan
    teachers: list[TeacherPlan]
    cofinetune: list[StagePlan]
    hops: list[HopPlan]
    alone: StudentPlan | None
    precision: Literal["fp32", "bf16", "fp16"]
    device: str
    processes: int = 1
    baseline: bool
    estimate: Estimate | None
    versions: dict[str, str]
    notes: list[str]
    derived: list[DerivedPlan] = []

    def first_weights(self, student: StudentPlan, weights: Literal["pretrained", "finetuned"] | None = None) -> str:
        """What a student begins with, in words: ``layers 2, 4 of fine-tuned bert``.

        A teacher that was given fine-tuned has no other weights than those, whatever ``weights`` says.

        Args:
            student: of this plan.
            weights: in place of the student's own, as the baseline takes them.
        """
        if not student.copied_layers:
            return "random weights"
        if student.cut_from is None:
            return f"a checkpoint of its own, {'its trained head kept' if student.head_order else 'with a fresh head'}"
        kind = self.teacher(student.cut_from).kind
        trained = (weights or student.weights) == "finetuned"
        state = {
            "finetuned": "fine-tuned ",
            "cofinetuned": "co-finetuned ",
            "cofinetune": "co-finetuned " if trained else "untrained " if self.task.starter else "pre-trained ",
            "assistant": "",
        }[kind]
        head = " and the head" if self.kept_head(student) else ""
        return f"layers {runs_of(student.copied_layers)}{head} of {state}{student.source}"

    def kept_head(self, student: StudentPlan) -> list[int] | None:
        """For each class, the output of a trained head that a student begins with; None for a fresh head.

        A checkpoint keeps its own, and a student that is cut from a fine-tuned teacher or an assistant has that teacher's,
        unless the recipe wants a fresh one.
        """
        if student.cut_from is None:
            return student.head_order
        teacher = self.teacher(student.cut_from)
        if self.recipe.student.init.head == "fresh" or teacher.kind not in ("finetuned", "assistant"):
            return None
        return teacher.order or list(range(len(self.task.labels)))

    @property
    def baseline_name(self) -> str:
        """What the same student without teachers is called in tables; cut from a fine-tuned one, it has that much of it."""
        if self.alone is None or self.alone.cut_from is None:
            return "without teachers"
        teacher = self.teacher(self.alone.cut_from)
        state = {"finetuned": "fine-tuned", "cofinetuned": "co-finetuned"}.get(teacher.kind)
        return "without teachers" if state is None else f"without teachers, from {state} {teacher.name}"

    @property
    def notes_on_baseline(self) -> list[str]:
        """What has to be said beside the difference between the student and the same student without teachers."""
        if self.alone is None or self.student is None or not self.baseline:
            return []
        ours, theirs = self.first_weights(self.student), self.first_weights(self.alone, "pretrained")
        if ours != theirs:
            return [
                f"the student began with {ours}, the one without teachers with {theirs}: their difference is what teachers and "
                "the other first weights are worth together"
            ]
        known = self.alone.cut_from is not None and self.teacher(self.alone.cut_from).kind != "cofinetune"
        return [f"the student without teachers began with {theirs} too, which know the task already"] if known else []

    @property
    def distills(self) -> bool:
        """Whether anybody teaches the student; a recipe of hard labels alone trains it without."""
        return bool(self.hops) and self.recipe.needs_teachers()

    def teacher(self, name: str) -> TeacherPlan:
        """The teacher of that name."""
        return next(teacher for teacher in self.teachers if teacher.name == name)

    @property
    def given_teachers(self) -> list[TeacherPlan]:
        """The teachers that the user named."""
        return [teacher for teacher in self.teachers if teacher.kind != "assistant"]

    @property
    def student(self) -> StudentPlan | None:
        """The student of a distillation; None when teachers alone are trained."""
        return self.hops[-1].student if self.hops else None

    @property
    def stages(self) -> list[StagePlan]:
        """All stages in the order in which they are trained."""
        return [*self.cofinetune, *(stage for hop in self.hops for stage in hop.stages)]

    @property
    def student_or_fail(self) -> StudentPlan:
        """The student of a distillation; a plan without one (co-finetuning) must not be asked."""
        assert self.student is not None
        return self.student

    @property
    def to_cofinetune(self) -> list[TeacherPlan]:
        """Teachers that have no trained head yet."""
        return [teacher for teacher in self.teachers if teacher.kind == "cofinetune"]


def runs_of(numbers: Sequence[int]) -> str:
    """``1–4`` for neighbours, ``2, 4, 6`` otherwise."""
    if len(numbers) > 1 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))
