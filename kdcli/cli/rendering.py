"""Tables and pictures of results, on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kdcli.evaluation.comparison import Evaluation, ModelScore


_WIDE = 110


def show(console: Console, *parts: RenderableType) -> None:
    """Print the parts one below the other."""
    console.print(Group(*parts))


def evaluation_view(evaluation: Evaluation) -> list[RenderableType]:
    """What was scored, then one row per model: score, share of the best teacher's, parameters."""
    title = f"{evaluation.task}, {evaluation.split} split, {evaluation.rows} rows"
    table = plain_table()
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
        table.add_row(escape(_label(model)), *values, kept, size_text(model.parameters), style=style)
    return [title_line(title), table]


def recipe_table(recipes: Mapping[str, Any], default: str, width: int) -> Table:
    """The shipped recipes: name, what each does, and where it is from, if there is room for that."""
    table = plain_table()
    table.add_column("recipe", no_wrap=True)
    table.add_column("what it does", ratio=3)
    if width >= _WIDE:
        table.add_column("from", ratio=3, style="dim")
    for name, about in recipes.items():
        mine = name == default
        summary = f"{about['summary']} (default)" if mine else about["summary"]
        cells = [name, summary, about.get("paper", "")][: len(table.columns)]
        table.add_row(*map(escape, cells), style="bold green" if mine else "")
    return table


def plain_table() -> Table:
    """A table without lines."""
    return Table(box=None, pad_edge=False, header_style="bold")


def title_line(text: str) -> Text:
    """What stands above a table."""
    return Text(text, style="italic")


def _other_metrics(evaluation: Evaluation) -> list[str]:
    """A second metric where it says something else."""
    second = "accuracy" if evaluation.metric != "accuracy" else "macro-f1"
    return [second] if second in evaluation.models[0].scores else []


def _label(model: ModelScore) -> str:
    return f"teacher {model.name}" if model.role == "teacher" else model.name


def size_text(parameters: int | None) -> str:
    """A number of parameters: ``22.7M``, ``48k``."""
    if parameters is None:
        return ""
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e5 else f"{parameters / 1e3:.0f}k"
