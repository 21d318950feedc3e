"""The page itself: what a report is made from, what it shows of that, and the files that it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcli.atomic_files import whole_folder, write_text
from kdcli.data.splits import DEV
from kdcli.evaluation.document import Evaluation, LayerComparison, ModelScore, TeacherSimilarity
from kdcli.evaluation.report import charts, heatmaps
from kdcli.evaluation.report.canvas import Picture
from kdcli.evaluation.report.charts import Point
from kdcli.evaluation.report.costs import Latencies, latencies, timed_points
from kdcli.evaluation.report.curves import read_phases
from kdcli.evaluation.report.heatmaps import Grid
from kdcli.evaluation.report.number_format import hundredfold, megabytes, p_value, parameters_text, signed, together
from kdcli.evaluation.report.slices import LostSlices, lost_slices, nowhere_clear
from kdcli.evaluation.report.verdict import main_model, methods, verdict
from kdcli.export.latency import three_figures
from kdcli.sanitizing import harmless

FILE, FOLDER = "report.html", "report"
TEMPLATE = "report.html.j2"
MOST_DRAWN_CLASSES = 20
_MOST_DRAWN, _MOST_CALIBRATED = 20, 4
_MOST_CONFUSIONS = 12
_BRIGHT = "Brighter is more alike."
_CKA = "Linear CKA: 1 where two layers hold the same up to rotation and scale."
_FILES = "An ONNX file that was not evaluated has the student’s score less what the export’s check{} found it to lose."
_KL = "KL(teacher ‖ student) in nats per query token, mean over heads."


@dataclass(frozen=True)
class Material:
    """What a report is made from; what is not there gets no section.

    Attributes:
        title: such as the name of the run's folder.
        evaluations: the one that the report is about first (of test), then others (of dev).
        insides: how the student's layers resemble those of its teachers.
        metrics: the lines of ``metrics.jsonl``.
        recipe: as YAML.
        environment: name → value: versions, machine, seed, fingerprints.
        benchmark: the content of ``export/benchmark.json``.
        facts: name and value of what is known of student and teachers.
    """

    title: str
    evaluations: Sequence[Evaluation]
    layers: LayerComparison | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    recipe: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    benchmark: Mapping[str, Any] | None = None
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Shown:
    """A picture and the words under it."""

    picture: Picture
    caption: str = ""


@dataclass(frozen=True)
class ShownLayers:
    """One teacher of the section on insides."""

    teacher: str
    summary: str
    figures: Sequence[Shown]


@dataclass(frozen=True)
class Confusion:
    """A wrong answer that a model gives often."""

    label: str
    prediction: str
    count: int
    share: float


@dataclass(frozen=True)
class Page:
    """All that the template shows beside the material itself.

    Attributes:
        verdict: sentences, the answer first.
        scores: for each evaluation its pictures.
        slices: in which the student lost, against each teacher that it was held against so closely.
        nowhere_clear: says so of the teachers against whom no slice stands out.
        calibration: reliability diagrams.
        calibration_words: of which models they are, where not of all.
        teacher_f1: F1 of each class by the best teacher, where the report is not about it.
        confusion: the best student's, where there are few enough classes to draw it.
        confusions: its most frequent ones, where there are not.
        insides: for each teacher.
        curves: two for each phase at most.
        costs: scores against parameters, bytes and time.
        latencies: of the benchmark.
        methods: how the numbers were made.
    """

    verdict: Sequence[str]
    scores: Sequence[Sequence[Shown]]
    slices: Sequence[LostSlices]
    nowhere_clear: str
    calibration: Sequence[Shown]
    calibration_words: str
    teacher_f1: Mapping[str, float]
    confusion: Shown | None
    confusions: Sequence[Confusion]
    layers: Sequence[ShownLayers]
    curves: Sequence[Shown]
    costs: Sequence[Shown]
    latencies: Latencies | None
    methods: Sequence[str]

    def pictures(self) -> Iterator[Picture]:
        """All of them, in order."""
        scores = [one for some in self.scores for one in some]
        layers = [one for each in self.layers for one in each.figures]
        confusion = [] if self.confusion is None else [self.confusion]
        for shown in (*scores, *self.calibration, *confusion, *layers, *self.curves, *self.costs):
            yield shown.picture


def write_report(material: Material, folder: Path) -> Path:
    """Write ``report.html``, and its pictures as SVG and PNG into ``report/`` beside it.

    Returns:
        The path of the page.
    """
    page = lay_out(material)
    with whole_folder(folder / FOLDER) as inside:
        for picture in page.pictures():
            write_text(inside / f"{picture.name}.svg", picture.svg)
            (inside / f"{picture.name}.png").write_bytes(picture.png)
    path = folder / FILE
    write_text(path, _rendered(material, page))
    return path


def lay_out(material: Material) -> Page:
    """Draw and word what the material has."""
    first = material.evaluations[0]
    judged, teacher = main_model(first), first.best_teacher
    few, timed = len(first.labels) <= MOST_DRAWN_CLASSES, latencies(material.benchmark)
    slices = [lost_slices(table) for table in first.agreements if table.slices]
    return Page(
        verdict=verdict(first),
        scores=[_score_pictures(place, evaluation) for place, evaluation in enumerate(material.evaluations, 1)],
        slices=slices,
        nowhere_clear=nowhere_clear(first, slices),
        calibration=_calibration(first),
        calibration_words=_calibration_words(first),
        teacher_f1={one.name: one.f1 for one in teacher.classes} if teacher is not None and teacher != judged else {},
        confusion=_confusion(first, judged) if judged.confusion and few else None,
        confusions=[] if few or not judged.confusion else _frequent_confusions(first, judged),
        layers=[_shown_layers(place, each) for place, each in enumerate(material.layers.teachers, 1)]
        if material.layers
        else [],
        curves=_curves(material, first.metric),
        costs=_costs(first, material.benchmark),
        latencies=timed,
        methods=methods(material.evaluations, layers=material.layers is not None, latencies=timed is not None),
    )


def _score_pictures(place: int, evaluation: Evaluation) -> list[Shown]:
    models = ([model for model in evaluation.models if model.role != "majority"] or evaluation.models)[:_MOST_DRAWN]
    title = f"Scores on {evaluation.split}"
    line = " The dashed line is the best teacher." if evaluation.best_teacher else ""
    more = " The first models of the table." if len(models) == _MOST_DRAWN else ""
    drawn = charts.scores(f"scores-{place}", title, models, evaluation.metric)
    found = [Shown(drawn, f"Bars are 95 % intervals over samples.{line}{more}")]
    if evaluation.recipes:
        drawn = charts.seeds(f"seeds-{place}", f"Seeds on {evaluation.split}", evaluation.recipes, evaluation.metric)
        found.append(Shown(drawn, "A dot is the run of one seed."))
    return found


def _calibration(evaluation: Evaluation) -> list[Shown]:
    judged, best = _calibrated(evaluation)[:_MOST_CALIBRATED], evaluation.best_teacher
    teacher = [] if best is None or best in judged else [best]
    found = []
    for place, model in enumerate([*judged, *teacher], 1):
        if model.calibration is not None and any(each.count for each in model.calibration.bins):
            found.append(Shown(charts.reliability(f"calibration-{place}", model.name, model.calibration)))
    return found


def _calibration_words(evaluation: Evaluation) -> str:
    judged, best = _calibrated(evaluation), evaluation.best_teacher
    if len(judged) <= _MOST_CALIBRATED:
        return ""
    drawn = judged[:_MOST_CALIBRATED]
    teacher = " and of the best teacher" if best is not None and best.calibration and best not in drawn else ""
    return f"The diagrams are of the first {_MOST_CALIBRATED} of {len(judged)} models{teacher}; the table has all."


def _calibrated(evaluation: Evaluation) -> list[ModelScore]:
    return [model for model in evaluation.judged if model.calibration]


def _confusion(evaluation: Evaluation, model: ModelScore) -> Shown:
    drawn = heatmaps.confusion("confusion", f"Confusions of {model.name}", evaluation.labels, model.confusion)
    return Shown(drawn, "A row for each label, a column for each answer; brighter is a greater share of the row.")


def _frequent_confusions(evaluation: Evaluation, model: ModelScore) -> list[Confusion]:
    found = [
        Confusion(label, prediction, row[place], row[place] / sum(row))
        for number, (label, row) in enumerate(zip(evaluation.labels, model.confusion, strict=False))
        for place, prediction in enumerate(evaluation.labels)
        if place != number and row[place]
    ]
    return sorted(found, key=lambda each: -each.count)[:_MOST_CONFUSIONS]


def _shown_layers(place: int, layers: TeacherSimilarity) -> ShownLayers:
    rows, columns = "student layer", f"layer of {layers.teacher}"
    own, other = layers.map, layers.suggested
    grids = [("cka", Grid("CKA of token states", layers.cka, rows, columns, top=1.0), _CKA)]
    if layers.cls_cosine is not None:
        grids.append(("cls", Grid("Cosine of [CLS] states", layers.cls_cosine, rows, columns, top=1.0), "Mean over the texts."))
    if layers.attention_kl is not None:
        grids.append(("attention", Grid("KL of attention", layers.attention_kl, rows, columns, 1, 1, low_is_alike=True), _KL))
    found = [
        Shown(heatmaps.heatmap(f"insides-{place}-{kind}", grid, own, other), f"{say} {_BRIGHT}") for kind, grid, say in grids
    ]
    if layers.head_kl is not None:
        grid = Grid("KL of attention, per head", layers.head_kl, rows, "head", 1, 1, low_is_alike=True)
        heads = "head with head" if layers.heads == "match" else "each head with the mean of the teacher’s"
        against = "the recipe’s map" if own else "the suggested map"
        words = f"Against the teacher layers of {against}, {heads}; nats per query token. {_BRIGHT}"
        found.append(Shown(heatmaps.heatmap(f"insides-{place}-heads", grid, {}, {}), words))
    return ShownLayers(layers.teacher, _map_sentence(layers), found)


def _map_sentence(layers: TeacherSimilarity) -> str:
    other = f"{_map(layers.suggested)} (mean CKA {layers.suggested_cka:.2f})"
    if not layers.map:
        return f"No loss of the recipe compares layers. The rising map with the highest mean CKA is {other}."
    mean = "" if layers.map_cka is None else f" (mean CKA {layers.map_cka:.2f})"
    if layers.map == layers.suggested:
        return f"The recipe’s map {_map(layers.map)}{mean} is the rising map with the highest mean CKA."
    return f"The recipe’s map is {_map(layers.map)}{mean}. The rising map with the highest mean CKA is {other}."


def _map(layers: Mapping[int, int]) -> str:
    return ", ".join(f"{ours}→{theirs}" for ours, theirs in layers.items())


def _curves(material: Material, metric: str) -> list[Shown]:
    found = []
    for place, phase in enumerate(read_phases(material.metrics, metric), 1):
        if phase.losses:
            mean = f"A point is the mean of {phase.averaged} logged values. " if phase.averaged > 1 else ""
            names = ", ".join(f"{name} from step {step:,}" for name, step in phase.stages)
            stages = f"Stages: {names}." if len(phase.stages) > 1 else ""
            found.append(Shown(charts.losses(f"curves-{place}-loss", phase), mean + stages))
        if phase.dev:
            best = "" if phase.best is None else f"The best evaluation is that at step {phase.best:,}."
            found.append(Shown(charts.progress(f"curves-{place}-dev", phase), best))
    return found


def _costs(evaluation: Evaluation, benchmark: Mapping[str, Any] | None) -> list[Shown]:
    """Scores against parameters, bytes and latency, each where at least two models can be compared."""
    metric, shape = evaluation.metric, latencies(benchmark)
    sized = [(model, model.parameters, model.bytes) for model in evaluation.models]
    by_parameters = [Point(m.name, m.role, count / 1e6, m.scores[metric]) for m, count, _ in sized if count]
    by_bytes = [Point(m.name, m.role, size / 1e6, m.scores[metric]) for m, _, size in sized if size]
    by_time, words = timed_points(evaluation, benchmark) if benchmark else [], ""
    if shape is not None:
        files = _FILES.format("" if evaluation.split == DEV else f" on {DEV}")
        words = f"Median of a batch of {shape.batch} with {shape.length} tokens each. {files}"
    kinds = (
        ("parameters", "Score and parameters", "million parameters", by_parameters, ""),
        ("bytes", "Score and size", "MB on the disk", by_bytes, ""),
        ("latency", "Score and latency", "milliseconds", by_time, words),
    )
    joined = "No other model is better than the joined ones in both."
    return [
        Shown(charts.tradeoff(f"costs-{name}", title, cost, metric, points), f"{joined} {words}".strip())
        for name, title, cost, points, words in kinds
        if len(points) > 1
    ]


def _shown_only(value: Any) -> Any:
    """A value of the template without the characters that are no text, whatever class names and texts hold."""
    from markupsafe import Markup

    return harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _rendered(material: Material, page: Page) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown_only,
    )
    filters = {
        "hundredfold": hundredfold,
        "signed": signed,
        "p_value": p_value,
        "parameters_text": parameters_text,
        "megabytes": megabytes,
        "three_figures": three_figures,
        "together": together,
        "drawing": lambda picture: Markup(picture.inline),
    }
    environment.filters.update(filters)
    first = material.evaluations[0]
    return environment.get_template(TEMPLATE).render(material=material, page=page, first=first, judged=main_model(first))
