"""The model card in the student's folder: what it is, what it was made from, and what was measured of it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kdcli import __version__
from kdcli.data.splits import DEV
from kdcli.evaluation.document import AgreementTable, Evaluation, ModelScore, Retention
from kdcli.evaluation.report.number_format import parameters_text
from kdcli.plan.plan import DISTILL, Plan, StagePlan, TeacherPlan
from kdcli.plan.request import TrainRequest
from kdcli.plan.resolve import asks_teachers
from kdcli.recipe.blocks import Schedule
from kdcli.sanitizing import harmless
from kdcli.tasks.kind import Kind
from kdcli.tasks.metric import LEVEL

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_MOST_SLICES = 5
_MARKS = re.compile(r"[\\`*_\[\]<>|&~$#!]")


def model_card(plan: Plan, evaluations: Sequence[Evaluation]) -> str:
    """README.md of a student, with the Hub's metadata block; it says nothing that was not measured.

    Args:
        plan: of a distillation.
        evaluations: of the run's own student, one for each split that was scored.
    """
    sections = {
        "": _what_it_is(plan),
        "Teachers": _teachers(plan),
        "Recipe": _recipe(plan),
        "Scores": "\n\n".join(_scores(evaluation) for evaluation in evaluations) or "None were measured.",
        "Data": _data(plan),
        "Use": _use(plan),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(plan, evaluations)),
    }
    text = "\n\n".join(f"## {title}\n\n{section}" if title else section for title, section in sections.items())
    return f"---\n{_metadata(plan, evaluations)}\n---\n\n{text}\n"


def _metadata(plan: Plan, evaluations: Sequence[Evaluation]) -> str:
    """The block that the Hub reads, as YAML."""
    from huggingface_hub import ModelCardData

    student = plan.student_or_fail
    results = [result for evaluation in evaluations for result in _results(evaluation, plan.task.known())]
    bases = [teacher.reference for teacher in _taking_part(plan) if _is_on_hub(teacher)]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=plan.task.known().pipeline,
        tags=["knowledge-distillation", "kdcli"],
        base_model=bases or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=f"{_slug(plan.task.name)}-{student.layers}-layer-{student.model_type}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _results(evaluation: Evaluation, kind: Kind) -> Iterator[EvalResult]:
    """The student's scores, as the Hub notes them."""
    from huggingface_hub import EvalResult

    for student in evaluation.of("student")[:1]:
        for metric, value in student.scores.items():
            name, more = (kind.metrics | kind.errors)[metric].on_hub
            interval = {"interval_95": [float(end) for end in student.interval]} if metric == evaluation.metric else {}
            yield EvalResult(
                task_type=kind.pipeline,
                task_name=kind.pipeline.replace("-", " ").title(),
                dataset_type=_slug(evaluation.task),
                dataset_name=evaluation.task,
                dataset_split=evaluation.split,
                dataset_args={"rows": evaluation.rows, "fingerprint": evaluation.fingerprint},
                metric_type=name,
                metric_name=metric,
                metric_value=float(value),
                metric_args={**more, **interval} or None,
            )


def _what_it_is(plan: Plan) -> str:
    student = plan.student_or_fail
    made = "Distilled" if plan.recipe.needs_teachers() else "Trained on labels alone"
    begin = f"It began with {_plain(plan.first_weights(student))}."
    sizes = f"{student.layers} layers, width {student.width}, {student.heads} attention heads"
    return f"""# {student.layers}-layer {student.model_type} student for {_plain(plan.task.name)}

{made} with kdcli {__version__}, recipe {_code(plan.recipe.name)}, seed {plan.request["seed"]}. {begin}
{sizes}, {parameters_text(student.parameters)} parameters."""


def _teachers(plan: Plan) -> str:
    rows = [
        [
            _plain(teacher.name),
            teacher.model_type,
            str(teacher.layers),
            str(teacher.width),
            parameters_text(teacher.parameters),
            f"[{teacher.reference}](https://huggingface.co/{teacher.reference})" if _is_on_hub(teacher) else "",
            _KINDS[teacher.kind],
        ]
        for teacher in _taking_part(plan)
    ]
    if not rows:
        return "None."
    return _table(["teacher", "architecture", "layers", "width", "parameters", "from", "how it learned the task"], rows)


_KINDS = {
    "cofinetune": "co-finetuned in the same run",
    "cofinetuned": "co-finetuned before",
    "finetuned": "fine-tuned before",
    "assistant": "distilled in the same run, on the way to the student",
}


def _recipe(plan: Plan) -> str:
    recipe, training = plan.recipe, plan.recipe.training
    paper = f" ({_plain(recipe.paper)})" if recipe.paper else ""
    about = f": {_plain(recipe.summary)}" if recipe.summary else ""
    overrides = TrainRequest.model_validate(plan.request).overrides
    changes = [_code(f"{'.'.join(str(key) for key in each.path)}={json.dumps(each.value)}") for each in overrides]
    changed = f"\n\nWith other values than the recipe has: {', '.join(changes)}." if changes else ""
    stages = _table(
        ["training", "stage", "epochs", "losses"],
        [[_plain(stage.phase), _plain(stage.name), f"{stage.epochs:g}", _losses(stage)] for stage in plan.stages],
    )
    return (
        f"{_code(recipe.name)}{about}{paper}.{changed}\n\n{stages}\n\nIn batches of {training.batch_size}, {plan.precision}, "
        f"on {plan.device}."
    )


def _losses(stage: StagePlan) -> str:
    return ", ".join(f"{term.loss.label} × {_weight(term.loss.weight)}" for term in stage.terms)


def _weight(weight: float | Schedule) -> str:
    return f"({weight.start} → {weight.to:g})" if isinstance(weight, Schedule) else f"{weight:g}"


def _scores(evaluation: Evaluation) -> str:
    """One split: a table of all models, and what the student scores by the other metrics."""
    shared = [model for model in evaluation.models if model.retention_of_ensemble is not None]
    header = ["model", "parameters", evaluation.metric, "95 % interval", "of the best teacher"]
    rows = [[*_row(model, evaluation.metric), _share(model.retention)] for model in evaluation.models]
    if shared:
        header.append("of the teachers together")
        rows = [[*row, _share(model.retention_of_ensemble)] for row, model in zip(rows, evaluation.models, strict=True)]
    rows += [[_plain(each.name), "", "no score", *[""] * (len(header) - 3)] for each in evaluation.unscored]
    others = [
        f"{metric} {value:.4f}"
        for student in evaluation.of("student")[:1]
        for metric, value in student.scores.items()
        if metric != evaluation.metric
    ]
    more = f"\n\nThe student by other metrics: {', '.join(others)}." if others else ""
    fingerprint = _code(evaluation.fingerprint or "unknown")
    return f"""### {evaluation.split} split

{evaluation.metric} on {evaluation.rows} rows of {_plain(evaluation.task)}, fingerprint {fingerprint}.
Intervals are over samples: what the same models may score on other texts of the same kind. Another seed is another model.

{_table(header, rows)}{more}"""


def _row(model: ModelScore, metric: str) -> list[str]:
    size = "" if model.parameters is None else parameters_text(model.parameters)
    low, high = model.interval
    return [_plain(model.name), size, f"{model.scores[metric]:.4f}", f"{low:.4f} to {high:.4f}"]


def _share(kept: Retention | None) -> str:
    if kept is None:
        return ""
    between = "no interval" if kept.interval is None else " to ".join(f"{end:.1%}" for end in kept.interval)
    return f"{kept.value:.1%} of {_plain(kept.of)} ({between})"


def _data(plan: Plan) -> str:
    rows = [[_plain(name), str(split.rows), f"`{split.fingerprint}`"] for name, split in plan.task.splits.items()]
    return f"{_plain(plan.task.name)}, as it was when the plan was made:\n\n{_table(['split', 'rows', 'fingerprint'], rows)}"


def _use(plan: Plan) -> str:
    text = '{"text": "some text", "text_pair": "another text"}' if plan.task.pairs else '"some text"'
    length = plan.recipe.training.max_length
    return f"""```python
from transformers import pipeline

classify = pipeline("{plan.task.known().pipeline}", "PATH OF THIS FOLDER")
classify({text}, truncation=True, max_length={length})
```

{plan.task.known().outputs_told(_plain)}"""


def _limits(plan: Plan, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    splits = [evaluation.split for evaluation in evaluations]
    yield f"Other languages, and texts of another kind than those of {_plain(plan.task.name)}, were not tested."
    yield from plan.task.known().limits()
    yield f"Texts were cut to {plan.recipe.training.max_length} tokens in training; what comes behind has no influence."
    chosen = "The checkpoint was chosen on the dev split"
    if splits == [DEV]:
        yield f"{chosen}, so that the scores above flatter it a little. No other split was scored."
    else:
        yield f"{chosen}" + (", so that its scores there flatter it a little." if DEV in splits else ".")
    for evaluation in evaluations:
        yield from (f"On the {evaluation.split} split {_plain(caution)}." for caution in evaluation.cautions)
        for student in evaluation.of("student")[:1]:
            yield from _limits_seen(evaluation, student)
    yield from (f"{_plain(note[0].upper() + note[1:])}." for note in plan.notes_on_baseline)
    yield (
        "The licences of the teachers and of the data go on to hold for this model. They were not looked up: whoever passes it "
        "on has to."
    )


def _limits_seen(evaluation: Evaluation, student: ModelScore) -> Iterator[str]:
    """What one split has shown of the student's weak sides."""
    found, where = student.calibration, f"On the {evaluation.split} split"
    if found is not None:
        better = ""
        if found.mended is not None:
            better = f" With its logits divided by {found.temperature:.2f} it would be {found.mended:.1%} (on rows held out)."
        yield (
            f"{where} its probability for its answer is off by {found.ece:.1%} on average (expected calibration error; at most "
            f"{found.ece_high:.1%} with 97.5 % confidence).{better}"
        )
    missing = [each.name for each in student.classes if each.rows == 0]
    if missing:
        yield f"{where} no sample is of class {_names(missing)}."
    for table in evaluation.agreements:
        if table.student == student.name:
            yield from _slices(table, where)


def _slices(table: AgreementTable, where: str) -> Iterator[str]:
    worst = [each for each in table.slices if each.p_value <= LEVEL][:_MOST_SLICES]
    if worst:
        parts = [f"{each.kind} {_plain(each.name)} ({each.teacher:.1%} → {each.student:.1%})" for each in worst]
        listed = "; ".join(parts)
        yield f"{where} it loses more accuracy to {_plain(table.teacher)} than elsewhere (p ≤ {LEVEL}) in: {listed}."


def _taking_part(plan: Plan) -> list[TeacherPlan]:
    """Who teaches the student, or whose weights it began with."""
    if asks_teachers(DISTILL, plan.recipe):
        return plan.teachers
    return [teacher for teacher in plan.teachers if teacher.name == plan.student_or_fail.cut_from]


def _is_on_hub(teacher: TeacherPlan) -> bool:
    """Whether it was named by its Hub id, and not by a folder that looks like one."""
    if teacher.kind == "assistant" or not _HUB_ID.fullmatch(teacher.reference):
        return False
    return not teacher.folder.replace("\\", "/").endswith(f"/{teacher.reference}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _names(names: Sequence[str]) -> str:
    return ", ".join(_plain(name) for name in names)


def _plain(text: str) -> str:
    """Text on one line that is nothing but text: no cell ends, no link, tag or code begins, nothing is hidden."""
    seen = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in ("Cc", "Cf") else one for one in text)
    return _MARKS.sub(r"\\\g<0>", " ".join(seen.split()))


def _code(text: str) -> str:
    """Text on one line between backticks, of which it has none itself."""
    return f"`{' '.join(harmless(text).split()).replace('`', chr(39))}`"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "task"
