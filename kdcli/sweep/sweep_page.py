"""``sweep.html``: the ranked trials and the pictures, one page without any other file."""

from __future__ import annotations

from pathlib import Path

from kdcli.evaluation.report import canvas
from kdcli.evaluation.report.number_format import hundredfold, together
from kdcli.sanitizing import harmless
from kdcli.sweep import sweep_charts
from kdcli.sweep.results import SweepResult
from kdcli.sweep.space import shown

_TEMPLATE = "sweep.html.j2"


def page(result: SweepResult, title: str) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(canvas.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: harmless(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    environment.filters.update(
        {"hundredfold": hundredfold, "together": together, "drawing": lambda picture: Markup(picture.inline), "shown": shown}
    )
    drawn = []
    if result.history():
        drawn = [sweep_charts.history(result), *sweep_charts.slices(result)]
        importance = sweep_charts.importances(result)
        drawn[1:1] = [] if importance is None else [importance]
    return environment.get_template(_TEMPLATE).render(result=result, title=title, pictures=drawn, best=result.best_trial)
