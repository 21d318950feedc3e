"""The report of an evaluation: one HTML page that needs nothing beside it, and its pictures as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdcli.evaluation import pictures
from kdcli.evaluation.agreement import Slice
from kdcli.evaluation.curves import read_phases
from kdcli.evaluation.document import AgreementTable, Evaluation, Insides, ModelScore, TeacherInsides
from kdcli.evaluation.pictures import Grid, Picture, Point
from kdcli.evaluation.significance import Difference, ModelDifference
from kdcli.export.latency import three_figures
from kdcli.files import whole_folder, write_text

FILE, FOLDER = "report.html", "report"
TEMPLATE = "report.html.j2"
MOST_DRAWN_CLASSES = 20
_MOST_DRAWN, _MOST_CALIBRATED = 20, 4
_MOST_SLICES = 12
_MOST_CONFUSIONS = 12
_NBSP = "\u00a0"
_BRIGHT = "Brighter is more alike."
_CKA = "Linear CKA: 1 where two layers hold the same up to rotation and scale."
_FILES = "An ONNX file that was not evaluated has the student’s score less what the export’s check found it to lose."
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
    insides: Insides | None = None
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
class InsidesOfTeacher:
    """One teacher of the section on insides."""

    teacher: str
    summary: str
    figures: Sequence[Shown]


@dataclass(frozen=True)
class Confusion:
    """A wrong answer that a model gives often."""

    label: str
    answer: str
    count: int
    share: float


@dataclass(frozen=True)
class Latencies:
    """What the benchmark found at one shape: its entries of ``latency``, the fastest first."""

    batch: int
    length: int
    rows: Sequence[Mapping[str, Any]]
    machine: str


@dataclass(frozen=True)
class Page:
    """All that the template shows beside the material itself.

    Attributes:
        verdict: sentences, the answer first.
        scores: for each evaluation its pictures.
        calibration: reliability diagrams.
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
    calibration: Sequence[Shown]
    teacher_f1: Mapping[str, float]
    confusion: Shown | None
    confusions: Sequence[Confusion]
    insides: Sequence[InsidesOfTeacher]
    curves: Sequence[Shown]
    costs: Sequence[Shown]
    latencies: Latencies | None
    methods: Sequence[str]

    def pictures(self) -> Iterator[Picture]:
        """All of them, in order."""
        scores = [one for some in self.scores for one in some]
        insides = [one for each in self.insides for one in each.figures]
        confusion = [] if self.confusion is None else [self.confusion]
        for shown in (*scores, *self.calibration, *confusion, *insides, *self.curves, *self.costs):
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
    few = len(first.labels) <= MOST_DRAWN_CLASSES
    return Page(
        verdict=verdict(first),
        scores=[_score_pictures(place, evaluation) for place, evaluation in enumerate(material.evaluations, 1)],
        calibration=_calibration(first),
        teacher_f1={one.name: one.f1 for one in teacher.classes} if teacher is not None and teacher != judged else {},
        confusion=_confusion(first, judged) if judged.confusion and few else None,
        confusions=[] if few else _frequent_confusions(first, judged),
        insides=[_insides(place, each) for place, each in enumerate(material.insides.teachers, 1)] if material.insides else [],
        curves=_curves(material, first.metric),
        costs=_costs(first, material.benchmark),
        latencies=latencies(material.benchmark),
        methods=methods(material),
    )


def main_model(evaluation: Evaluation) -> ModelScore:
    """The model that the report is about: the best of those that the evaluation is about."""
    return max(evaluation.judged or evaluation.models, key=lambda model: model.scores[evaluation.metric])


def verdict(evaluation: Evaluation) -> list[str]:
    """What came out, in plain sentences."""
    ours, teacher = main_model(evaluation), evaluation.best_teacher
    found = [*_recipe_sentences(evaluation), _kept(evaluation, ours)]
    against = difference_of(evaluation, ours.name, teacher.name) if teacher is not None else None
    if teacher is not None and against is not None:
        between = _difference_sentence(f"The difference from the best teacher ({teacher.name})", against)
        found.append(f"{between} {against.limit}")
    elif ours.drop is not None:
        low, high = signed(-ours.drop.high), signed(-ours.drop.low)
        found.append(f"Its difference from {ours.drop.of} is {signed(-ours.drop.value)} points ({low} to {high}).")
    alone = next(iter(evaluation.of("without-teachers")), None)
    if alone is not None and (against := difference_of(evaluation, ours.name, alone.name)):
        found.append(_difference_sentence("The gain over the same student without teachers", against))
    return found


def difference_of(evaluation: Evaluation, ours: str, theirs: str) -> ModelDifference | None:
    """The comparison of two models, where it was made in this direction."""
    return next((each for each in evaluation.differences if (each.ours, each.theirs) == (ours, theirs)), None)


def _recipe_sentences(evaluation: Evaluation) -> list[str]:
    if not evaluation.recipes:
        return []
    best = evaluation.recipes[0]
    spread = "" if best.deviation is None else f" ± {hundredfold(best.deviation)}"
    several = len(evaluation.recipes) > 1
    which = f"The recipe with the highest mean is {best.name}: it scores" if several else f"{best.name} scores"
    runs = "1 seed" if len(best.scores) == 1 else f"{len(best.scores)} seeds"
    others = [_difference_sentence(f"Its difference from {each.theirs}", each) for each in evaluation.recipe_differences[:1]]
    return [f"{which} {hundredfold(best.mean)}{spread} points of {evaluation.metric} over {runs}.", *others]


def _kept(evaluation: Evaluation, ours: ModelScore) -> str:
    name = "The student" if len(evaluation.of("student")) == 1 and ours.role == "student" else ours.name
    kept = ours.retention
    if kept is None:
        metric = evaluation.metric
        score, low, high = map(hundredfold, (ours.scores[metric], *ours.interval))
        guesses = [hundredfold(each.scores[metric]) for each in evaluation.of("majority")]
        beside = "".join(f"; always answering the most frequent class scores {each}" for each in guesses)
        between = f"{low} to {high}" if ours.interval[0] < 0 else f"{low}–{high}"
        return f"{name} scores {score} ({between}) points of {metric} on {evaluation.rows:,} samples{beside}."
    teacher = next((model for model in evaluation.models if model.name == kept.of), None)
    whose = "the best teacher’s" if evaluation.best_teacher is teacher else f"{kept.of}’s"
    low, high = hundredfold(kept.low), hundredfold(kept.high)
    share = f"{hundredfold(kept.value)}{_NBSP}% ({low}–{high})"
    return f"{name} keeps {share} of {whose} {evaluation.metric}{_smaller(ours, teacher)}."


def _smaller(ours: ModelScore, teacher: ModelScore | None) -> str:
    if teacher is None or not ours.parameters or not teacher.parameters:
        return ""
    times = teacher.parameters / ours.parameters
    if 0.95 < times < 1.05:
        return ", with about as many parameters"
    return f", with {times:.1f} times fewer parameters" if times > 1 else f", with {1 / times:.1f} times as many parameters"


def _difference_sentence(what: str, found: Difference) -> str:
    points = f"{signed(found.difference)} points ({signed(found.low)} to {signed(found.high)})"
    shown = "is significant" if found.significant else "is not significant"
    return f"{what}, {points}, {shown} ({p_value(found.p_value)})."


def _score_pictures(place: int, evaluation: Evaluation) -> list[Shown]:
    models = ([model for model in evaluation.models if model.role != "majority"] or evaluation.models)[:_MOST_DRAWN]
    title = f"Scores on {evaluation.split}"
    line = " The dashed line is the best teacher." if evaluation.best_teacher else ""
    more = " The first models of the table." if len(models) == _MOST_DRAWN else ""
    drawn = pictures.scores(f"scores-{place}", title, models, evaluation.metric)
    found = [Shown(drawn, f"Bars are 95 % intervals over samples.{line}{more}")]
    if evaluation.recipes:
        drawn = pictures.seeds(f"seeds-{place}", f"Seeds on {evaluation.split}", evaluation.recipes, evaluation.metric)
        found.append(Shown(drawn, "A dot is the run of one seed."))
    return found


def _calibration(evaluation: Evaluation) -> list[Shown]:
    judged = [model for model in evaluation.judged if model.calibration][:_MOST_CALIBRATED]
    best = evaluation.best_teacher
    teacher = [] if best is None or best in judged else [best]
    found = []
    for place, model in enumerate([*judged, *teacher], 1):
        if model.calibration is not None and any(each.count for each in model.calibration.bins):
            found.append(Shown(pictures.reliability(f"calibration-{place}", model.name, model.calibration)))
    return found


def _confusion(evaluation: Evaluation, model: ModelScore) -> Shown:
    drawn = pictures.confusion("confusion", f"Confusions of {model.name}", evaluation.labels, model.confusion)
    return Shown(drawn, "A row for each label, a column for each answer; brighter is a greater share of the row.")


def _frequent_confusions(evaluation: Evaluation, model: ModelScore) -> list[Confusion]:
    found = [
        Confusion(label, answer, row[place], row[place] / sum(row))
        for number, (label, row) in enumerate(zip(evaluation.labels, model.confusion, strict=False))
        for place, answer in enumerate(evaluation.labels)
        if place != number and row[place]
    ]
    return sorted(found, key=lambda each: -each.count)[:_MOST_CONFUSIONS]


def _insides(place: int, insides: TeacherInsides) -> InsidesOfTeacher:
    rows, columns = "student layer", f"layer of {insides.teacher}"
    own, other = insides.map, insides.suggested
    grids = [("cka", Grid("CKA of token states", insides.cka, rows, columns, top=1.0), _CKA)]
    if insides.cls_cosine is not None:
        grids.append(
            ("cls", Grid("Cosine of [CLS] states", insides.cls_cosine, rows, columns, top=1.0), "Mean over the texts.")
        )
    if insides.attention_kl is not None:
        grids.append(("attention", Grid("KL of attention", insides.attention_kl, rows, columns, 1, 1, low_is_alike=True), _KL))
    found = [
        Shown(pictures.heatmap(f"insides-{place}-{kind}", grid, own, other), f"{say} {_BRIGHT}") for kind, grid, say in grids
    ]
    if insides.head_kl is not None:
        grid = Grid("KL of attention, per head", insides.head_kl, rows, "head", 1, 1, low_is_alike=True)
        heads = "head with head" if insides.heads == "match" else "each head with the mean of the teacher’s"
        against = "the recipe’s map" if own else "the suggested map"
        words = f"Against the teacher layers of {against}, {heads}; nats per query token. {_BRIGHT}"
        found.append(Shown(pictures.heatmap(f"insides-{place}-heads", grid, {}, {}), words))
    return InsidesOfTeacher(insides.teacher, _map_sentence(insides), found)


def _map_sentence(insides: TeacherInsides) -> str:
    other = f"{_map(insides.suggested)} (mean CKA {insides.suggested_cka:.2f})"
    if not insides.map:
        return f"No loss of the recipe compares layers. The rising map with the highest mean CKA is {other}."
    mean = "" if insides.map_cka is None else f" (mean CKA {insides.map_cka:.2f})"
    if insides.map == insides.suggested:
        return f"The recipe’s map {_map(insides.map)}{mean} is the rising map with the highest mean CKA."
    return f"The recipe’s map is {_map(insides.map)}{mean}. The rising map with the highest mean CKA is {other}."


def _map(layers: Mapping[int, int]) -> str:
    return ", ".join(f"{ours}→{theirs}" for ours, theirs in layers.items())


def _curves(material: Material, metric: str) -> list[Shown]:
    found = []
    for place, phase in enumerate(read_phases(material.metrics, metric), 1):
        if phase.losses:
            mean = f"A point is the mean of {phase.averaged} logged values. " if phase.averaged > 1 else ""
            names = ", ".join(f"{name} from step {step:,}" for name, step in phase.stages)
            stages = f"Stages: {names}." if len(phase.stages) > 1 else ""
            found.append(Shown(pictures.losses(f"curves-{place}-loss", phase), mean + stages))
        if phase.dev:
            best = "" if phase.best is None else f"The best evaluation is that at step {phase.best:,}."
            found.append(Shown(pictures.progress(f"curves-{place}-dev", phase), best))
    return found


def _costs(evaluation: Evaluation, benchmark: Mapping[str, Any] | None) -> list[Shown]:
    """Scores against parameters, bytes and latency, each where at least two models can be compared."""
    metric, shape = evaluation.metric, latencies(benchmark)
    sized = [(model, model.parameters, model.bytes) for model in evaluation.models]
    by_parameters = [Point(m.name, m.role, count / 1e6, m.scores[metric]) for m, count, _ in sized if count]
    by_bytes = [Point(m.name, m.role, size / 1e6, m.scores[metric]) for m, _, size in sized if size]
    by_time, words = timed_points(evaluation, benchmark) if benchmark else [], ""
    if shape is not None:
        words = f"Median of a batch of {shape.batch} with {shape.length} tokens each. {_FILES}"
    kinds = (
        ("parameters", "Score and parameters", "million parameters", by_parameters, ""),
        ("bytes", "Score and size", "MB on the disk", by_bytes, ""),
        ("latency", "Score and latency", "milliseconds", by_time, words),
    )
    joined = "No other model is better than the joined ones in both."
    return [
        Shown(pictures.tradeoff(f"costs-{name}", title, cost, metric, points), f"{joined} {words}".strip())
        for name, title, cost, points, words in kinds
        if len(points) > 1
    ]


def timed_points(evaluation: Evaluation, benchmark: Mapping[str, Any]) -> list[Point]:
    """Scores against the milliseconds of the benchmark's middle shape; those whose score is not known are left out."""
    shape = latencies(benchmark)
    models = {model.name: model for model in evaluation.models}
    models.setdefault("student", main_model(evaluation))
    files = {f"onnx {each['precision']}": each for each in benchmark["variants"]}
    found = []
    for row in shape.rows if shape else []:
        model, file = models.get(row["model"]), files.get(row["engine"])
        if model is not None:
            score = model.scores[evaluation.metric] if file is None else _score_of_file(evaluation, model, file)
            role = model.role if file is None else "export"
            found += [] if score is None else [Point(f"{row['model']}, {row['engine']}", role, row["p50_ms"], score)]
    return found


def _score_of_file(evaluation: Evaluation, model: ModelScore, file: Mapping[str, Any]) -> float | None:
    """What an ONNX file scores: its own score, or else the model's less what the export's check found it to lose."""
    for each in evaluation.of("export"):
        if each.path and each.path.endswith(file["file"]):
            return each.scores[evaluation.metric]
    split = file["check"]["split"] if file["check"] else {}
    if split.get("metric") != evaluation.metric:
        return None
    return model.scores[evaluation.metric] - float(split["drop"]) / 100


def latencies(benchmark: Mapping[str, Any] | None) -> Latencies | None:
    """The benchmark's entries at its middle shape."""
    rows = benchmark["latency"] if benchmark else []
    if not benchmark or not rows:
        return None
    shapes = sorted({(row["batch"], row["length"]) for row in rows})
    batches, lengths = (sorted(set(sizes)) for sizes in zip(*shapes, strict=True))
    middle = batches[len(batches) // 2], lengths[len(lengths) // 2]
    batch, length = middle if middle in shapes else shapes[len(shapes) // 2]
    chosen = [row for row in rows if (row["batch"], row["length"]) == (batch, length)]
    machine = benchmark["machine"]
    versions = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if machine.get(name)]
    threads = [f"{machine['threads']} threads"] if machine.get("threads") else []
    about = [str(machine[key]) for key in ("processor", "gpu") if machine.get(key)] + threads + versions
    return Latencies(batch, length, sorted(chosen, key=lambda row: float(row["p50_ms"])), ", ".join(about))


def methods(material: Material) -> list[str]:
    """How the numbers of the report were made, each method once."""
    evaluations, inside = material.evaluations, material.insides
    models = [model for evaluation in evaluations for model in evaluation.models]
    pairs = [each for evaluation in evaluations for each in evaluation.differences]
    seeds = [each for evaluation in evaluations for each in evaluation.recipe_differences]
    tables = [each for evaluation in evaluations for each in evaluation.agreements]
    compared: list[Difference] = [*pairs, *seeds]
    how = "Wilson’s method" if evaluations[0].metric == "accuracy" else "the percentile bootstrap"
    told = [
        (True, f"Intervals of scores: 95 % over samples, by {how}. They say nothing about other seeds."),
        (
            any(model.retention or model.retention_of_ensemble for model in models),
            "Retention: our score divided by the teacher’s; 95 % interval by the paired bootstrap over the same samples.",
        ),
        *((True, words) for words in dict.fromkeys(f"{each.test}, because {each.why}." for each in compared)),
        (bool(pairs), "Intervals of differences between models: 95 %, paired bootstrap over samples."),
        (bool(seeds), "Recipes: compared over the seeds of their training, on one split; 95 % intervals by Student’s t."),
        (any(each.comparisons > 1 for each in compared), "Comparisons made together: p-values corrected by Holm’s method."),
        (bool(compared), "What can be shown at all: the smallest difference found with 80 % power at the 5 % level."),
        (bool(tables), "Inherited: teacher right or wrong against student right or wrong (Aguilar et al. 2020)."),
        (
            any(table.slices for table in tables),
            "Slices: exact permutation test, one-sided, of losing no more in the slice than elsewhere; p-values corrected by "
            "Holm’s method for all slices looked at.",
        ),
        (
            any(model.calibration for model in models),
            "Calibration: expected calibration error over bins of equal width (Guo et al. 2017); its upper bound by the "
            "bootstrap over samples; the temperature is fitted on the samples that it is judged on.",
        ),
        (
            inside is not None,
            "Insides: linear CKA (Kornblith et al. 2019) of the states of tokens that both tokenizers have, aligned by text.",
        ),
        (
            latencies(material.benchmark) is not None,
            "Latency: models timed in turns with the same threads; medians with 95 % bootstrap intervals.",
        ),
    ]
    return [words for so, words in told if so]


def lost_most(table: AgreementTable) -> list[Slice]:
    """The first slices in which the student loses at all."""
    return [each for each in table.slices if each.difference < 0][:_MOST_SLICES]


def hundredfold(value: float | None) -> str:
    """``0.9842`` as ``98.4``."""
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def signed(value: float) -> str:
    """``-0.012`` as ``−1.2``, ``0.012`` as ``+1.2``."""
    return f"{100 * value:+.1f}".replace("-", "−")


def p_value(value: float) -> str:
    """``p < 0.001`` or ``p = 0.042``."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def short_count(value: int | None) -> str:
    """``1357960`` as ``1.36 M``."""
    if value is None:
        return "–"
    return f"{value / 1e6:,.3g}{_NBSP}M" if 1e5 <= value < 1e9 else f"{value:,}"


def megabytes(value: int | None) -> str:
    """``4319032`` as ``4.32``."""
    return "–" if value is None else f"{value / 1e6:,.0f}" if value >= 1e8 else f"{value / 1e6:.3g}"


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
    )
    filters = {
        "hundredfold": hundredfold,
        "signed": signed,
        "p_value": p_value,
        "short_count": short_count,
        "megabytes": megabytes,
        "three_figures": three_figures,
        "together": lambda words: words.replace(" %", f"{_NBSP}%"),
        "lost_most": lost_most,
        "drawing": lambda picture: Markup(picture.inline),
    }
    environment.filters.update(filters)
    first = material.evaluations[0]
    return environment.get_template(TEMPLATE).render(material=material, page=page, first=first, judged=main_model(first))
