"""A sweep as tables that fit the terminal: what it will do, and what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from kdcli.cli.plan_view import plan_view
from kdcli.cli.rendering import Column, column_tables, title_line
from kdcli.sweep.space import shown

if TYPE_CHECKING:
    from kdcli.sweep.job import DryRun
    from kdcli.sweep.results import SweepResult, TrialResult

_MOST_ROWS = 30


def dry_sweep_view(dry: DryRun, width: int) -> list[RenderableType]:
    """Parameters, sampler, number of runs, and the plan of the first trial."""
    sweep, parameters = dry.loaded.sweep, dry.loaded.parameters
    columns = [
        Column("parameter", [one.key for one in parameters]),
        Column("values", [one.words() for one in parameters]),
        Column("first trial", [shown(dry.first[one.key]) for one in parameters]),
    ]
    seeds = ", ".join(map(str, sweep.seeds))
    runs = dry.trials * len(sweep.seeds)
    lines = [
        f"sampler {sweep.sampler}, seed {sweep.sampler_seed}; at most {dry.trials} trials over seeds {seeds}: {runs} runs",
        "the teachers are co-finetuned once, for all trials" if dry.checked.once else "",
    ]
    return [
        title_line(f"sweep {dry.loaded.document.origin}"),
        *column_tables(columns, ("parameter", "values"), {}, width),
        *(Text(line) for line in lines if line),
        Text(""),
        title_line("the first trial"),
        *plan_view(dry.checked.plan, width),
    ]


def dry_sweep_document(dry: DryRun) -> dict[str, Any]:
    """The same as plain data."""
    sweep = dry.loaded.sweep
    return {
        "parameters": {one.key: one.words() for one in dry.loaded.parameters},
        "sampler": sweep.sampler,
        "sampler_seed": sweep.sampler_seed,
        "seeds": sweep.seeds,
        "trials": dry.trials,
        "runs": dry.trials * len(sweep.seeds),
        "teachers_once": dry.checked.once,
        "first": dict(dry.first),
        "plan": dry.checked.plan.model_dump(mode="json", by_alias=True),
    }


def sweep_view(result: SweepResult, width: int) -> list[RenderableType]:
    """The trials by rank, what has to be said beside the best score, and what to do next."""
    trials = result.trials[:_MOST_ROWS]
    columns = [
        Column("rank", ["–" if trial.rank is None else str(trial.rank) for trial in trials]),
        Column("trial", [str(trial.number) for trial in trials]),
        Column(f"mean dev {result.metric}", [_mean(trial) for trial in trials]),
        *(Column(one.key, [shown(trial.parameters.get(one.key, "–")) for trial in trials]) for one in result.parameters),
        Column("state", [trial.state for trial in trials]),
    ]
    left = len(result.trials) - len(trials)
    parts: list[RenderableType] = [
        title_line(f"{result.task}, dev split, {len(result.trials)} trials, seeds {', '.join(map(str, result.seeds))}"),
        *column_tables(columns, ("rank",), {"1": "bold green", "–": "dim"}, width),
    ]
    if left:
        parts.append(Text(f"{left} more trials in --json", style="dim"))
    parts.append(Text(result.caution, style="yellow"))
    if result.test_command is not None:
        parts += [Text(f"on test: {result.test_command}"), Text(f"its recipe: {result.recipe}")]
    return parts


def _mean(trial: TrialResult) -> str:
    if trial.mean is None:
        return "–"
    return f"{trial.mean:.4f}" if trial.deviation is None else f"{trial.mean:.4f} ± {trial.deviation:.4f}"
