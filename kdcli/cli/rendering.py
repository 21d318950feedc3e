"""Tables and pictures of results, on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kdcli.cli.progress import clock

if TYPE_CHECKING:
    from kdcli.evaluation.comparison import Evaluation, ModelScore
    from kdcli.jobs.export import Export
    from kdcli.plan.plan import Plan, StagePlan, StudentPlan, TeacherPlan
    from kdcli.recipe.schema import Loss

_BEGINNINGS = {"cofinetune": "no head yet", "cofinetuned": "co-finetuned", "finetuned": "fine-tuned"}


def show(console: Console, *parts: RenderableType) -> None:
    """Print the parts one below the other."""
    console.print(Group(*parts))


def evaluation_view(evaluation: Evaluation) -> list[RenderableType]:
    """What was scored, then one row per model: score, share of the best teacher's, parameters."""
    title = f"{evaluation.task}, {evaluation.split} split, {evaluation.rows} rows"
    table = _plain_table()
    table.add_column("model")
    table.add_column(evaluation.metric, justify="right")
    for metric in _other_metrics(evaluation):
        table.add_column(metric, justify="right")
    table.add_column("of best\nteacher", justify="right")
    table.add_column("params", justify="right")
    for model in evaluation.models:
        style = "bold green" if model.role == "student" else "dim" if model.role == "majority" else ""
        values = [f"{model.scores[metric]:.4f}" for metric in [evaluation.metric, *_other_metrics(evaluation)]]
        kept = "" if model.retention is None else f"{model.retention:.1%}"
        table.add_row(escape(_label(model)), *values, kept, _size(model.parameters), style=style)
    return [_title(title), table]


def _plain_table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold")


def _title(text: str) -> Text:
    return Text(text, style="italic")


def _other_metrics(evaluation: Evaluation) -> list[str]:
    """A second metric where it says something else."""
    second = "accuracy" if evaluation.metric != "accuracy" else "macro-f1"
    return [second] if second in evaluation.models[0].scores else []


def _label(model: ModelScore) -> str:
    return f"teacher {model.name}" if model.role == "teacher" else model.name


def _size(parameters: int | None) -> str:
    if parameters is None:
        return ""
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.0f}k"


def export_tables(done: Export) -> list[RenderableType]:
    """Parity at each shape, then latencies with the speed-up over the slowest teacher."""
    parity = _plain_table()
    for name in ("batch", "length", "largest difference", "same class"):
        parity.add_column(name, justify="right")
    for shape in done.parity:
        parity.add_row(str(shape.batch), str(shape.length), f"{shape.max_difference:.1e}", f"{shape.agreement:.0%}")
    parts: list[RenderableType] = [_title("torch against ONNX Runtime"), parity]
    for batch, length in dict.fromkeys((row.batch, row.length) for row in done.latencies):
        rows = [row for row in done.latencies if (row.batch, row.length) == (batch, length)]
        slowest = max(row.median_ms for row in rows)
        table = _plain_table()
        table.add_column("model")
        table.add_column("engine")
        for name in ("median", "p10–p90", "vs slowest"):
            table.add_column(name, justify="right")
        for row in rows:
            spread = f"{row.p10_ms:.3g}–{row.p90_ms:.3g}"
            table.add_row(row.model, row.engine, f"{row.median_ms:.3g}", spread, f"{slowest / row.median_ms:.1f}×")
        where = f"batch {batch}, length {length}, {done.machine['threads']} threads"
        parts += [Text(""), _title(f"latency at {where} (ms, median of turns)"), table]
    size = done.sizes
    parts.append(Text(f"\n{done.model}  {size['onnx'] / 1e6:.1f} MB (weights before: {size['checkpoint'] / 1e6:.1f} MB)"))
    return parts


def plan_view(plan: Plan, width: int) -> list[RenderableType]:
    """The whole plan: task, models, layer map, stages, cost; with fewer columns on a terminal of little width."""
    parts: list[RenderableType] = [_task_line(plan), _models_table(plan, narrow=width < 90)]
    if plan.layer_maps:
        parts.append(Group(Text("Layer map (0 is the embeddings)", style="bold"), _layer_picture(plan)))
    parts.append(_stage_tree(plan))
    if plan.estimate is not None:
        estimate = plan.estimate
        parts.append(
            Text(
                f"Estimate: about {clock(estimate.seconds)} on {plan.device} in {plan.precision}, "
                f"{estimate.memory_bytes / 2**30:.1f} GiB of memory, "
                f"{estimate.tokens_per_sample} tokens per text (rough: from sizes, not from a run)"
            )
        )
    return [part for part in parts for part in (part, Text(""))][:-1]


def _task_line(plan: Plan) -> RenderableType:
    task = plan.task
    splits = ", ".join(f"{name} {split.rows}" for name, split in task.splits.items())
    lines = [
        f"[bold]Task[/] {escape(task.name)}: {len(task.labels)} classes, {task.metric}, "
        f"{'pairs of texts' if task.pairs else 'single texts'}; rows: {splits}",
        f"[bold]Recipe[/] {escape(plan.recipe.name)}: {escape(plan.recipe.summary)}",
    ]
    return Text.from_markup("\n".join(lines))


def _models_table(plan: Plan, narrow: bool) -> Table:
    table = _plain_table()
    table.add_column("model")
    table.add_column("type")
    names = ("layers", "width", "params") if narrow else ("layers", "width", "heads", "vocab", "params")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("begins as")
    rows: list[tuple[str, TeacherPlan | StudentPlan, str]] = [
        (f"teacher {teacher.name}", teacher, _BEGINNINGS[teacher.kind]) for teacher in plan.teachers
    ]
    if plan.student is not None:
        student = plan.student
        copied = f"layers {_runs(student.copied_layers)} of {student.source}" if student.copied_layers else "random weights"
        rows.append(("student", student, copied))
    for label, model, beginning in rows:
        sizes = [model.layers, model.width] if narrow else [model.layers, model.width, model.heads, model.vocabulary]
        style = "bold green" if model is plan.student else ""
        table.add_row(label, model.model_type, *map(str, sizes), _size(model.parameters), beginning, style=style)
    return table


def _runs(numbers: list[int]) -> str:
    """``1–4`` for neighbours, ``2, 4, 6`` otherwise."""
    if len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))


def _layer_picture(plan: Plan) -> Table:
    """Student layers beside the teacher layers that supervise them, the top layer first."""
    assert plan.student is not None
    table = _plain_table()
    table.add_column("student", justify="right")
    for teacher in plan.teachers:
        table.add_column(f"teacher {teacher.name}")
    for layer in range(plan.student.layers, -1, -1):
        matched = [plan.layer_maps.get(teacher.name, {}).get(layer) for teacher in plan.teachers]
        cells = ["" if other is None else f"◀── {other} of {plan.teacher(name).layers}"
                 for name, other in zip(plan.teacher_names, matched, strict=True)]  # fmt: skip
        if layer > 0 or any(other is not None for other in matched):
            table.add_row(str(layer), *cells)
    return table


def _stage_tree(plan: Plan) -> Tree:
    tree = Tree("[bold]Stages[/]")
    for stage in plan.stages:
        branch = tree.add(_stage_line(stage))
        for term in stage.terms:
            branch.add(escape(_term_line(term)))
    if plan.baseline:
        steps = sum(stage.steps for stage in plan.stages if stage.phase == "distill")
        tree.add(f"baseline: the same student without teachers, {steps} steps").add("hard-labels × 1")
    return tree


def _stage_line(stage: StagePlan) -> str:
    name = stage.name if stage.phase == "cofinetune" else f"{stage.phase}: {stage.name}"
    return f"{escape(name)}, {stage.epochs:g} epochs, {stage.steps} steps, learning rate {stage.learning_rates['body']:g}"


def _term_line(term: Loss) -> str:
    details = ", ".join(
        f"{key.replace('_', ' ')} {_detail(value)}"
        for key, value in term.model_dump(exclude={"loss", "weight"}, exclude_none=True).items()
        if value is not False
    )
    return f"{term.loss} × {term.weight:g}" + (f" ({details})" if details else "")


def _detail(value: object) -> str:
    if isinstance(value, dict):
        return " and ".join(str(part) for part in value.values())
    return f"{value:g}" if isinstance(value, float) else str(value)
