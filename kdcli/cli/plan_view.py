"""The plan as a picture: the models, which layers teach which, every stage and what it minimises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from kdcli.cli.progress import clock
from kdcli.cli.rendering import Column, column_tables
from kdcli.evaluation.report.number_format import parameters_text

if TYPE_CHECKING:
    from kdcli.plan.plan import HopPlan, Plan, StagePlan, StudentPlan, TeacherPlan
    from kdcli.recipe.term_plan import TermPlan

Pairs = Mapping[int, int]
_BEGINNINGS = {
    "cofinetune": "no head yet",
    "cofinetuned": "co-finetuned",
    "finetuned": "fine-tuned",
    "assistant": "trained on the way",
}


def plan_view(plan: Plan, width: int) -> list[RenderableType]:
    """The whole plan: task, models, layer maps, stages, cost."""
    parts: list[RenderableType] = [_task_lines(plan), Group(*_models_tables(plan, width))]
    depths = {teacher.name: teacher.layers for teacher in plan.teachers}
    for hop in plan.hops:
        parts += layer_pictures(hop, depths)
    parts.append(_stage_tree(plan))
    if plan.derived:
        told = "\n".join(f"  {each.key} {each.value:g} ({each.why})" for each in plan.derived)
        parts.append(
            Text.from_markup(
                f"[bold]Derived[/], since the recipe leaves them open (--set KEY=VALUE has the last word)\n{escape(told)}"
            )
        )
    if plan.estimate is not None:
        estimate = plan.estimate
        parts.append(
            Text(
                f"Estimate: about {clock(estimate.seconds)} on {plan.device} in {plan.precision}, "
                f"{estimate.memory_bytes / 2**30:.1f} GiB of memory, "
                f"{estimate.disk_bytes / 2**30:.1f} GiB of disk for the teachers' outputs, "
                f"{estimate.tokens_per_sample} tokens per text (rough: from sizes, not from a run)"
            )
        )
    return spaced(parts)


def spaced(parts: Sequence[RenderableType]) -> list[RenderableType]:
    """The parts with an empty line between them."""
    return [part for entry in parts for part in (entry, Text(""))][:-1]


def _task_lines(plan: Plan) -> RenderableType:
    task = plan.task
    splits = ", ".join(f"{name} {split.rows}" for name, split in task.splits.items())
    lines = [
        f"[bold]Task[/] {escape(task.name)}: {task.known().describe()}, {task.metric}, "
        f"{'pairs of texts' if task.pairs else 'single texts'}; rows: {splits}",
        *_column_lines(plan),
        f"[bold]Recipe[/] {escape(plan.recipe.name)}: {escape(plan.recipe.summary)}",
    ]
    return Text.from_markup("\n".join(lines))


def _column_lines(plan: Plan) -> list[str]:
    """What each column of the data stands for."""
    from kdcli.data.columns import Choice

    found = plan.task.columns
    if found is None:
        return []
    choice = Choice(found.text, found.pair, found.label, tuple(found.given), tuple(found.left_out))
    return [f"[bold]Columns[/] {escape(str(choice))}"]


def _models_tables(plan: Plan, width: int) -> list[RenderableType]:
    rows: list[tuple[str, TeacherPlan | StudentPlan, str]] = [
        (teacher.name if teacher.kind == "assistant" else f"teacher {teacher.name}", teacher, _BEGINNINGS[teacher.kind])
        for teacher in plan.teachers
    ]
    if plan.hops and not plan.distills:
        rows = [(f"source {teacher.name}", teacher, "asked nothing") for teacher in plan.teachers]
    if plan.student is not None:
        rows.append(("student", plan.student, plan.first_weights(plan.student)))
    labels, models, beginnings = zip(*rows, strict=True)
    columns = [
        Column("model", list(labels)),
        Column("type", [model.model_type for model in models]),
        Column("begins as", list(beginnings)),
        Column("layers", [str(model.layers) for model in models]),
        Column("width", [str(model.width) for model in models]),
        Column("heads", [str(model.heads) for model in models]),
        Column("vocab", [str(model.vocabulary) for model in models]),
        Column("params", [parameters_text(model.parameters) for model in models]),
    ]
    return column_tables(columns, ("model", "type", "begins as"), {"student": "bold green"}, width)


def layer_pictures(hop: HopPlan, depths: Mapping[str, int]) -> list[RenderableType]:
    """One picture per layer map of a training, with the losses that go by it; the top layers on top."""
    pictures: list[RenderableType] = []
    for maps, losses in _maps_by_losses(hop):
        title = Text.assemble(
            ("Layer map", "bold"),
            f" of {', '.join(losses)}" + ("" if hop.name == "distill" else f", {hop.name}") + " (0 is the embeddings)",
        )
        blocks = [_block(name, pairs, hop.student.layers, depths[name]) for name, pairs in maps.items()]
        pictures.append(Group(title, Columns(blocks, padding=(0, 6))))
    return pictures


def _maps_by_losses(hop: HopPlan) -> list[tuple[dict[str, dict[int, int]], list[str]]]:
    """The layer maps of all stages together, each with the names of the losses that have it."""
    by_loss: dict[str, tuple[str, dict[str, dict[int, int]]]] = {}
    for stage in hop.stages:
        for term in stage.terms:
            _, maps = by_loss.setdefault(term.loss.model_dump_json(), (term.loss.label, {}))
            for teacher, pairs in term.layers.items():
                maps.setdefault(teacher, {}).update(pairs)
    grouped: list[tuple[dict[str, dict[int, int]], list[str]]] = []
    for label, maps in by_loss.values():
        same = next((names for known, names in grouped if known == maps), None)
        if same is not None and label not in same:
            same.append(label)
        elif same is None and maps:
            grouped.append((maps, [label]))
    return grouped


def _block(teacher: str, pairs: Pairs, student_layers: int, teacher_layers: int) -> Text:
    """Student layers, arrows, teacher layers."""
    width = max(len("student"), 3)
    lines = [Text.assemble(("student".rjust(width), "green"), "      ", (teacher, "bold"))]
    for ours, theirs in _rows(pairs, student_layers, teacher_layers):
        matched = ours is not None and theirs is not None and pairs.get(ours) == theirs
        lines.append(
            Text.assemble(
                ("" if ours is None else str(ours)).rjust(width),
                (" ◀─── " if matched else "      ", "cyan"),
                ("" if theirs is None else str(theirs)).rjust(2),
                style="" if matched else "dim",
            )
        )
    return Text("\n").join(lines)


def _rows(pairs: Pairs, student_layers: int, teacher_layers: int) -> Iterator[tuple[int | None, int | None]]:
    """Lines of the picture from the top: matched layers meet, the others stand between them.

    A map that is not in ascending order, or many to one, has one line per student layer.
    """
    ordered = sorted(pairs.items())
    if any(later <= earlier for (_, earlier), (_, later) in pairwise(ordered)):
        for layer in range(student_layers, -1, -1):
            if layer > 0 or layer in pairs:
                yield layer, pairs.get(layer)
        return
    ours, theirs = student_layers, teacher_layers
    for student, teacher in [*reversed(ordered), (-1 if 0 in pairs else 0, -1 if 0 in pairs.values() else 0)]:
        yield from zip_longest(range(ours, student, -1), range(theirs, teacher, -1))
        if pairs.get(student) == teacher:
            yield student, teacher
        ours, theirs = student - 1, teacher - 1


def check_view(recipe: str, hops: Sequence[HopPlan], depths: Mapping[str, int]) -> list[RenderableType]:
    """What a recipe will do with the models that it was held against: layer maps and stages."""
    parts: list[RenderableType] = [Text(f"{recipe}: right for these models", style="green")]
    for hop in hops:
        parts += layer_pictures(hop, depths)
    tree = Tree("[bold]Stages[/]")
    for hop in hops:
        branch = tree if len(hops) == 1 else tree.add(_hop_line(hop))
        for stage in hop.stages:
            add_stage(branch, stage, steps_known=False)
    return spaced([*parts, tree])


def _stage_tree(plan: Plan) -> Tree:
    tree = Tree("[bold]Stages[/]")
    for stage in plan.cofinetune:
        add_stage(tree, stage)
    folds = plan.recipe.teachers.out_of_fold
    if plan.cofinetune and folds:
        tree.add(f"out-of-fold outputs: the same {folds} times more, each without one of {folds} parts of the training rows")
    for hop in plan.hops:
        branch = tree if len(plan.hops) == 1 else tree.add(_hop_line(hop))
        for stage in hop.stages:
            add_stage(branch, stage)
    if plan.baseline:
        steps = sum(stage.steps for stage in plan.hops[-1].stages)
        assert plan.alone is not None
        begins = escape(plan.first_weights(plan.alone, "pretrained"))
        tree.add(f"baseline: the same student without teachers, from {begins}, {steps} steps").add("hard-labels × 1")
    return tree


def _hop_line(hop: HopPlan) -> str:
    name = "student" if hop.name == "distill" else hop.name
    return f"{name} ({hop.student.layers} layers), taught by {escape(', '.join(hop.teachers))}"


def add_stage(tree: Tree, stage: StagePlan, steps_known: bool = True) -> None:
    """One stage with its losses, its rule for moving on, and what moves."""
    branch = tree.add(_stage_line(stage, steps_known))
    for term in stage.terms:
        branch.add(escape(term_line(term)))
    if stage.until is not None:
        branch.add(Text(f"or until {stage.until.loss} is below {stage.until.below:g}", style="dim"))
    if stage.moves:
        from kdcli.plan.stages import brief_places

        frozen = f"; frozen: {brief_places(stage.freeze)}" if stage.freeze else ""
        branch.add(Text(f"moves: {brief_places(stage.moves)}{frozen}", style="dim"))


def _stage_line(stage: StagePlan, steps_known: bool) -> str:
    steps = f" {stage.steps} steps," if steps_known else ""
    epochs = f"{stage.epochs:g} epoch{'' if stage.epochs == 1 else 's'}"
    own = ", ".join(f"{rate:g} for {escape(name)}" for name, rate in stage.teacher_rates.items())
    rates = f"{stage.learning_rates['body']:g}" + (f" ({own})" if own else "")
    return f"[bold]{escape(stage.name)}[/], {epochs},{steps} learning rate {rates}"


def term_line(term: TermPlan) -> str:
    """A term with what it was given and what it was resolved to."""
    from kdcli.plan.plan import runs_of

    given = term.loss.model_dump(
        by_alias=True,
        exclude={"loss", "name", "weight", "layers", "heads", "relation_heads", "projection"},
        exclude_defaults=True,
    )
    details = [key.replace("_", " ") + ("" if value is True else f" {_detail(value)}") for key, value in given.items()]
    layers = sorted({layer for pairs in term.layers.values() for layer in pairs})
    if layers:
        details.append(f"student layer{'s' if len(layers) > 1 else ''} {runs_of(layers)}")
    details += [f"heads of {name} {_detail(heads)}" for name, heads in term.heads.items() if heads != "match"]
    details += [f"{heads} relation heads ({name})" for name, heads in term.relation_heads.items() if heads is not None]
    sides = {name: side for name, side in term.projected.items() if side is not None}
    if sides:
        share = getattr(getattr(term.loss, "projection", None), "share", "per-layer").replace("-", " ")
        details.append("projected: " + ", ".join(f"{side} ({name})" for name, side in sides.items()) + f", {share}")
    name = term.loss.loss_name() if term.loss.name is None else f"{term.loss.name} ({term.loss.loss_name()})"
    weight = term.loss.model_dump(by_alias=True)["weight"]
    return f"{name} × {_detail(weight)}" + (f" ({'; '.join(details)})" if details else "")


def _detail(value: Any) -> str:
    if isinstance(value, dict) and {"from", "to"} <= value.keys():
        return f"{_detail(value['from'])}→{_detail(value['to'])}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_detail(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_detail, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
