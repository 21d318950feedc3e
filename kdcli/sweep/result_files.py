"""The files of a sweep: ``sweep.json``, ``sweep.csv``, ``sweep.html`` and ``best.yaml``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdcli.atomic_files import write_json, write_text
from kdcli.evaluation.tables import as_csv
from kdcli.plan.request import TrainRequest
from kdcli.plan.settings import load_recipe
from kdcli.recipe.yaml_document import written
from kdcli.sweep.checking import with_values
from kdcli.sweep.folder import SweepFolder
from kdcli.sweep.results import SweepResult, TrialResult
from kdcli.sweep.space import text
from kdcli.sweep.sweep_file import LoadedSweep
from kdcli.sweep.sweep_page import page


def write_results(result: SweepResult, request: TrainRequest, loaded: LoadedSweep, folder: SweepFolder) -> None:
    """Write what was found into the sweep's folder."""
    write_json(folder.document, result.model_dump(mode="json"))
    write_text(folder.table, as_csv(list(_rows(result))))
    best = result.best_trial
    if best is not None:
        write_text(folder.best, best_recipe(best, result, request, loaded))
    write_text(folder.page, page(result, folder.path.resolve().name))


def best_recipe(best: TrialResult, result: SweepResult, request: TrainRequest, loaded: LoadedSweep) -> str:
    """The recipe with the flags and the best trial's values in it, as YAML."""
    data = load_recipe(with_values(request, loaded, best.parameters)).document.data
    seeds = ", ".join(map(str, best.scores))
    head = [
        f"# Trial {best.number} of a sweep over {', '.join(one.key for one in result.parameters)}:",
        f"# dev {result.metric} {best.mean:.4f}, mean over seeds {seeds}; the best of {len(result.trials)}, so optimistic.",
        f"# On test: {result.test_command}",
    ]
    return "\n".join(" ".join(line.split()) for line in head) + "\n" + written(data)


def _rows(result: SweepResult) -> Iterator[dict[str, Any]]:
    for trial in result.trials:
        values = {one.key: trial.parameters.get(one.key) for one in result.parameters}
        yield {
            "rank": trial.rank,
            "trial": trial.number,
            "state": trial.state,
            f"mean dev {result.metric}": trial.mean,
            "standard deviation": trial.deviation,
            **{key: text(value) if isinstance(value, list | dict) else value for key, value in values.items()},
            **{f"seed {seed}": trial.scores.get(seed) for seed in result.seeds},
            "message": trial.message,
            "folder": trial.folder,
        }
