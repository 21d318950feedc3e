"""What an evaluation found, as one document: ``evaluation.json``, ``kdcli evaluate --json``, and what the report draws.

Scores, differences, intervals and errors are fractions (1.0 is perfect), everywhere.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.seeds import RecipeDifference
from kdcli.evaluation.significance import ModelDifference
from kdcli.tasks.calibration import Calibration
from kdcli.tasks.class_scores import ClassScore

FORMAT = 3
Role = Literal["student", "without-teachers", "export", "model", "teacher", "ensemble", "majority"]
Kind = Literal["checkpoint", "onnx", "predictions", "ensemble", "constant"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Retention(_Part):
    """How much of another model's score a model keeps.

    Attributes:
        of: name of the other model.
        value: our score divided by theirs.
        low, high: 95 % interval over samples, by the paired bootstrap; the other model stays the same one. None where their
            score is not clearly above 0, so that the share may be anything.
    """

    of: str
    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper end, where there are any."""
        return None if self.low is None or self.high is None else (self.low, self.high)


class Drop(_Part):
    """By how much a model scores below another one.

    Attributes:
        of: name of the other model.
        value: their score minus ours, as a fraction; negative where ours is higher.
        low, high: 95 % interval over samples, by the paired bootstrap; the other model stays the same one.
    """

    of: str
    value: float
    low: float
    high: float


class Chance(_Part):
    """Whether a model's score can be told from guessing.

    Attributes:
        majority: what always answering the most frequent class of these labels scores.
        p_value: how often the same predictions in random order score as well (one-sided permutation test).
        at_chance: no better than that at the 5 % level, or no more accurate than the most frequent class.
    """

    majority: float
    p_value: float
    at_chance: bool


class Unscored(_Part):
    """A model that has no score, because its outputs are not finite.

    Attributes:
        name, role, kind, run, path: as of :class:`ModelScore`.
        not_finite: for how many samples they are infinite or NaN.
        rows: how many samples there are.
    """

    name: str
    role: Role
    kind: Kind
    run: str | None = None
    path: str | None = None
    not_finite: int
    rows: int

    @property
    def sentence(self) -> str:
        """That it has no score, and why."""
        return f"{self.name} has no score: its outputs are not finite for {self.not_finite} of {self.rows} samples"


class ModelScore(_Part):
    """One model.

    Attributes:
        name: unique in the document.
        role: ``student``, ``without-teachers`` (the same student, trained on labels alone), ``export`` (an ONNX file of the
            student), ``model`` (any other that was named), ``teacher``, ``ensemble`` (the mean of the teachers'
            probabilities), ``majority`` (always the most frequent class of train).
        kind: what it is.
        run: name of the run that it is from.
        path: where its files are.
        scores: metric → value, every metric that is defined for the task.
        interval: 95 % interval of the deciding metric, over samples.
        parameters: of the whole model with its head; of an ensemble, those of all its members.
        bytes: of its weights as they lie on the disk.
        retention: of the best teacher's score (of the same run).
        retention_of_ensemble: of the ensemble's.
        drop: below the best teacher.
        chance: its score against guessing; None for the majority class itself.
        calibration: where there are logits.
        classes: per class, in the task's order.
        confusion: counts; a row for each gold class, in it a column for each answer.
    """

    name: str
    role: Role
    kind: Kind
    run: str | None = None
    path: str | None = None
    scores: dict[str, float]
    interval: tuple[float, float]
    parameters: int | None = None
    bytes: int | None = None
    retention: Retention | None = None
    retention_of_ensemble: Retention | None = None
    drop: Drop | None = None
    chance: Chance | None = None
    calibration: Calibration | None = None
    classes: list[ClassScore] = []
    confusion: list[list[int]] = []


class AgreementTable(_Part):
    """Teacher right or wrong against student right or wrong (Aguilar et al. 2020), and where the student lost most.

    Attributes:
        both_right, lost, gained, both_wrong: rows that both get right, that only the teacher gets right, that only the
            student gets right, that both get wrong.
        changed: rows that the two answer differently.
        slices: those first where the student most clearly loses more than elsewhere, 50 at the most; none where several
            models are judged.
    """

    teacher: str
    student: str
    both_right: int
    lost: int
    gained: int
    both_wrong: int
    changed: int
    slices: list[Slice] = []


class RecipeScore(_Part):
    """Several runs that differ in their seed alone.

    Attributes:
        scores: seed → score by the deciding metric.
        mean: over the seeds.
        deviation: standard deviation over the seeds; None with one seed.
        models: names of the models, by seed.
    """

    name: str
    scores: dict[int, float]
    mean: float
    deviation: float | None
    models: dict[int, str]


class GateResult(_Part):
    """One gate held against one model.

    Attributes:
        gate: as it was asked for, such as ``--min-retention 0.98:bound``.
        model: which model.
        value: what was held against the limit: the figure, or the unfavourable end of its 95 % interval; None where that does
            not exist (the model has no score, the share no interval), which never passes.
        limit: the limit.
        passed: whether it holds.
        sentence: what was found.
    """

    gate: str
    model: str
    value: float | None
    limit: float
    passed: bool
    sentence: str


class Evaluation(_Part):
    """Models side by side on one split.

    Attributes:
        format: version of this schema; it grows by one whenever a field changes its meaning or goes.
        kdcli: version of the program.
        task, split, rows, source, fingerprint: what was scored on: the task, its split, how many samples, from which file,
            sha256 of that file (16 hex digits).
        labels: class names, in order; empty where there are no classes.
        metric: the metric that decides.
        models: the best student first, then what it is compared with.
        unscored: models without a score, because their outputs are not finite; they are in no comparison, and no gate passes.
        differences: of pairs of models, on the same samples.
        agreements: of each model that is judged with its best teacher; with each of them where it is judged alone.
        recipes: runs that differ in their seed alone, the best mean first.
        recipe_differences: of pairs of recipes, over their seeds.
        gates: what was asked for, and whether it holds.
        cautions: what puts a figure in doubt: a model at chance, a teacher that is under-trained, a model without a score.
        notes: what a reader should know.
    """

    format: Literal[3] = 3
    kdcli: str
    task: str
    split: str
    rows: int
    source: str
    fingerprint: str = ""
    labels: list[str]
    metric: str
    models: list[ModelScore]
    unscored: list[Unscored] = []
    differences: list[ModelDifference] = []
    agreements: list[AgreementTable] = []
    recipes: list[RecipeScore] = []
    recipe_differences: list[RecipeDifference] = []
    gates: list[GateResult] = []
    cautions: list[str] = []
    notes: list[str] = []

    def of(self, *roles: Role) -> list[ModelScore]:
        """The models in these roles, in order."""
        return [model for model in self.models if model.role in roles]

    def model(self, name: str) -> ModelScore:
        """The model of that name."""
        return next(model for model in self.models if model.name == name)

    @property
    def judged(self) -> list[ModelScore]:
        """Whom the evaluation is about, and whom gates hold for: students; without any, models named; else teachers."""
        return self.of(self.judged_role)

    @property
    def judged_role(self) -> Role:
        """Whom the evaluation is about, whether they have a score or not."""
        there = {model.role for model in self.models} | {model.role for model in self.unscored}
        roles: tuple[Role, ...] = ("student", "model", "teacher")
        return next((role for role in roles if role in there), "teacher")

    @property
    def best_teacher(self) -> ModelScore | None:
        """The teacher with the highest score."""
        return max(self.of("teacher"), key=lambda model: model.scores[self.metric], default=None)


class TeacherSimilarity(_Part):
    """How a student's layers resemble one teacher's. Layer 0 is the embeddings, layer 1 the first block, on both sides.

    Attributes:
        teacher: its name.
        cka: linear CKA of aligned token states, [K+1][T+1]: a row for each student layer, from 0.
        cls_cosine: mean cosine of the [CLS] states, [K+1][T+1]; None where the widths differ, so that it has no meaning.
        attention_kl: KL(teacher ‖ student) of the attention in nats per query token, mean over heads, [K][T]: from layer 1;
            None where an architecture does not show its attention.
        head_kl: the same for each student layer and head, against the teacher layer of the map (the suggested one, where
            the recipe has none), [K][A]; None likewise.
        heads: how heads were brought together: ``match`` (head with head) or ``mean`` (over the teacher's heads).
        map: the recipe's layer map, student layer → teacher layer; empty where no loss of it compares layers.
        map_cka: mean CKA along it.
        suggested: the rising map with the highest mean CKA.
        suggested_cka: mean CKA along that.
    """

    teacher: str
    cka: list[list[float]]
    cls_cosine: list[list[float]] | None
    attention_kl: list[list[float]] | None
    head_kl: list[list[float]] | None
    heads: Literal["match", "mean"] = "match"
    map: dict[int, int] = {}
    map_cka: float | None = None
    suggested: dict[int, int]
    suggested_cka: float


class LayerComparison(_Part):
    """What the insides of a student look like beside those of its teachers; the content of ``insides.json``.

    Attributes:
        split: what the texts are from.
        rows: how many texts were looked at.
        tokens: how many aligned tokens CKA was computed over.
        teachers: one entry each.
    """

    format: Literal[1] = 1
    student: str
    split: str
    rows: int
    tokens: int
    teachers: list[TeacherSimilarity]
