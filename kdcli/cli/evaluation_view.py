"""An evaluation as tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from kdcli.cli.rendering import Column, column_tables, title_line
from kdcli.evaluation.report.number_format import parameters_text

if TYPE_CHECKING:
    from kdcli.evaluation.document import AgreementTable, Evaluation, ModelScore, Retention
    from kdcli.evaluation.significance import Difference

_STYLES = {"student": "bold green", "majority": "dim"}
_MANY = 12
_LEVEL = 0.05


def evaluation_view(evaluation: Evaluation, width: int) -> list[RenderableType]:
    """Scores, what differences are worth, what was inherited, calibration, gates that hold; as much of it as there is."""
    parts: list[RenderableType] = [
        title_line(f"{evaluation.task}, {evaluation.split} split, {evaluation.rows} rows"),
        *_scores(evaluation, width),
    ]
    if evaluation.recipes:
        parts += [Text(""), title_line("recipes, over their seeds"), *_recipes(evaluation, width)]
    if evaluation.recipe_differences:
        parts += _differences(evaluation.recipe_differences, width)
    if evaluation.differences:
        parts += _differences(evaluation.differences, width)
    if len(evaluation.judged) == 1:
        parts += _agreement(evaluation.agreements[0], width) if evaluation.agreements else []
        parts += _calibration(evaluation.judged[0])
    if any(gate.passed for gate in evaluation.gates):
        parts.append(Text(""))
        parts += [Text(f"passed  {gate.sentence}", style="green") for gate in evaluation.gates if gate.passed]
    return parts


def _scores(evaluation: Evaluation, width: int) -> list[RenderableType]:
    models = _shown(evaluation)
    second = "accuracy" if evaluation.metric != "accuracy" else "macro-f1"
    columns = [
        Column("model", [_label(model) for model in models]),
        Column(evaluation.metric, [f"{model.scores[evaluation.metric]:.4f}" for model in models]),
        Column("95 % interval", [f"{model.interval[0]:.3f}–{model.interval[1]:.3f}" for model in models]),
    ]
    if second in models[0].scores:
        columns.append(Column(second, [f"{model.scores[second]:.4f}" for model in models]))
    kept = [model.retention for model in models]
    if any(kept):
        ranges = [_range(one) for one in kept]
        columns += [Column("of best teacher", [_share(one) for one in kept]), Column("95 % of that", ranges)]
    ensemble = [_share(model.retention_of_ensemble) for model in models]
    if any(ensemble):
        columns.append(Column("of ensemble", ensemble))
    columns.append(Column("params", ["" if one.parameters is None else parameters_text(one.parameters) for one in models]))
    sizes = [model.bytes for model in models]
    columns.append(Column("MB", ["" if size is None else f"{size / 1e6:.1f}" for size in sizes]))
    styles = {_label(model): _STYLES.get(model.role, "") for model in models}
    left = len(evaluation.models) - len(models)
    return [
        *column_tables(columns, ("model",), styles, width),
        *([Text(f"{left} more models in --json", style="dim")] if left else []),
        *(Text(line, style="dim") for line in _references(models)),
        *(Text(f"{model.name}: no score", style="bold yellow") for model in evaluation.unscored),
        *(Text(f"{text}.", style="yellow") for text in evaluation.cautions),
    ]


def _references(models: Sequence[ModelScore]) -> Iterator[str]:
    """Whose score the shares of a table are shares of, model by model where it is not the same one."""
    kinds = {
        "of best teacher": {model.name: model.retention for model in models},
        "of ensemble": {model.name: model.retention_of_ensemble for model in models},
    }
    for column, kept in kinds.items():
        of: dict[str, list[str]] = {}
        for name, share in kept.items():
            if share is not None:
                of.setdefault(share.of, []).append(name)
        if len(of) == 1:
            yield f"{column}: of {next(iter(of))}"
        elif of:
            yield f"{column}: " + "; ".join(f"{', '.join(names)} of {reference}" for reference, names in of.items())


def _shown(evaluation: Evaluation) -> list[ModelScore]:
    """All models while they are few; else those that are judged, the best teacher, and the majority class."""
    if len(evaluation.models) <= _MANY:
        return evaluation.models
    wanted = [*evaluation.of("student", "model"), evaluation.best_teacher, *evaluation.of("majority")]
    return [model for model in wanted if model is not None] or evaluation.models


def _recipes(evaluation: Evaluation, width: int) -> list[RenderableType]:
    rows = evaluation.recipes
    columns = [
        Column("recipe", [recipe.name for recipe in rows]),
        Column("seeds", [str(len(recipe.scores)) for recipe in rows]),
        Column(f"mean {evaluation.metric}", [f"{recipe.mean:.4f}" for recipe in rows]),
        Column("deviation", ["–" if recipe.deviation is None else f"{recipe.deviation:.4f}" for recipe in rows]),
        Column("lowest", [f"{min(recipe.scores.values()):.4f}" for recipe in rows]),
        Column("highest", [f"{max(recipe.scores.values()):.4f}" for recipe in rows]),
    ]
    return column_tables(columns, ("recipe",), {}, width)


def _differences(found: Sequence[Difference], width: int) -> list[RenderableType]:
    shown = sorted(found, key=lambda one: one.p_value)[:_MANY]
    columns = [
        Column("compared", [f"{one.ours} − {one.theirs}" for one in shown]),
        Column("points", [f"{100 * one.difference:+.1f}" for one in shown]),
        Column("95 % interval", [_interval(one) for one in shown]),
        Column("p", [_p_value(one) for one in shown]),
        Column("shown", ["yes" if one.significant else "no" for one in shown]),
        Column("can show from", ["–" if one.smallest is None else f"{100 * one.smallest:.1f} points" for one in shown]),
    ]
    tests = "; ".join(dict.fromkeys(f"{one.test}, because {one.why}" for one in shown))
    together = max(one.comparisons for one in found)
    among = (
        f" P-values after Holm's correction for {together} comparisons, intervals after Bonferroni's." if together > 1 else ""
    )
    left = f" {len(found) - len(shown)} more in --json." if len(found) > len(shown) else ""
    return [
        Text(""),
        title_line("what the differences are worth"),
        *column_tables(columns, ("compared",), {}, width),
        Text(f"{tests}.{among}{left}", style="dim"),
        *([Text(found[0].limit, style="dim")] if len(found) == 1 and found[0].smallest is not None else []),
    ]


def _agreement(found: AgreementTable, width: int) -> list[RenderableType]:
    rows = found.both_right + found.lost + found.gained + found.both_wrong
    columns = [
        Column("", [f"{found.teacher} right", f"{found.teacher} wrong"]),
        Column(f"{found.student} right", [_count(found.both_right, rows), _count(found.gained, rows)]),
        Column(f"{found.student} wrong", [_count(found.lost, rows), _count(found.both_wrong, rows)]),
    ]
    worst = [one for one in found.slices if one.p_value <= _LEVEL and one.difference < 0]
    if worst:
        lines = "; ".join(
            f"{one.kind} {one.name!r} ({one.samples} samples, {100 * one.difference:+.1f} points)" for one in worst[:3]
        )
        slices = f"It lost most in: {lines}."
    else:
        slices = "It lost nowhere clearly more than elsewhere (length, class, word)."
    return [
        Text(""),
        title_line(f"what was inherited from {found.teacher}; {found.changed} predictions changed"),
        *column_tables(columns, ("",), {}, width),
        Text(slices, style="dim"),
    ]


def _calibration(model: ModelScore) -> list[RenderableType]:
    found = model.calibration
    if found is None:
        return []
    line = f"calibration error (ECE) {found.ece:.3f}, at most {found.ece_high:.3f}"
    if found.mended is not None:
        line += f"; dividing the logits by {found.temperature:.2f} would make it {found.mended:.3f} (on rows held out)"
    return [Text(""), Text(line)]


def _share(kept: Retention | None) -> str:
    return "" if kept is None else f"{kept.value:.1%}"


def _range(kept: Retention | None) -> str:
    """The interval of a share; a dash where there is a share and none of it."""
    if kept is None:
        return ""
    return "–" if kept.interval is None else "–".join(f"{end:.1%}" for end in kept.interval)


def _interval(found: Difference) -> str:
    return "–" if found.interval is None else " to ".join(f"{100 * end:+.1f}" for end in found.interval)


def _p_value(found: Difference) -> str:
    if found.interval is None:
        return "–"
    return f"{found.p_value:.3f}" if found.p_value >= 0.001 else "<0.001"


def _count(count: int, rows: int) -> str:
    return f"{count} ({count / rows:.1%})"


def _label(model: ModelScore) -> str:
    already = model.role != "teacher" or model.name.startswith("teacher ")
    return model.name if already else f"teacher {model.name}"
