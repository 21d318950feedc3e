"""What an evaluation leaves behind: the document, the tables, the model card and the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from kdcli import __version__
from kdcli.atomic_files import write_json, write_text
from kdcli.data.splits import DEV, TEST
from kdcli.data.task import Task
from kdcli.engine.events import Events, Note, WorkStarted
from kdcli.evaluation.comparison import ModelOutputs
from kdcli.evaluation.document import Evaluation, LayerComparison
from kdcli.evaluation.report.html_page import Material, write_report
from kdcli.evaluation.tables import write_tables
from kdcli.jobs.card import model_card
from kdcli.jobs.layer_comparison import measure_layers
from kdcli.jobs.metric_logs import read_metrics
from kdcli.jobs.run_folder import RunFolder
from kdcli.plan.plan import Plan

INTERNALS, REPORT = "insides.json", "report.html"


def write_proof(
    run: RunFolder,
    plan: Plan,
    task: Task,
    evaluation: Evaluation,
    entries: Sequence[ModelOutputs],
    device: torch.device,
    events: Events,
    report: bool = True,
) -> Path | None:
    """Keep an evaluation of a run in its folder: document and model card, and with ``report`` tables, insides and report.

    Returns the report's path, or None.
    """
    write_json(_document(run, evaluation.split), evaluation.model_dump(mode="json"))
    if run.student.is_dir():
        write_text(run.student / "README.md", model_card(plan, _evaluations(run)))
    if not report:
        return None
    events.emit(WorkStarted("writing the report"))
    write_tables(run.path / "tables" / evaluation.split, task, evaluation, entries)
    if kept_layer_comparison(run) is None:
        layers = measure_layers(run, plan, task, events, device)
        if layers is not None:
            write_json(run.path / INTERNALS, layers.model_dump(mode="json"))
    page = write_run_report(run, plan)
    events.emit(Note(f"report: {page}"))
    return page


def write_comparison(
    folder: Path, task: Task, evaluation: Evaluation, entries: Sequence[ModelOutputs], events: Events, report: bool = True
) -> Path | None:
    """Keep an evaluation that belongs to no single run in a folder of its own; returns the report's path, or None."""
    write_json(folder / "evaluation.json", evaluation.model_dump(mode="json"))
    if not report:
        return None
    events.emit(WorkStarted("writing the report"))
    write_tables(folder / "tables" / evaluation.split, task, evaluation, entries)
    environment = {"kdcli": __version__, "data": f"{evaluation.source} ({evaluation.fingerprint})"}
    page = write_report(Material(folder.resolve().name, [evaluation], environment=environment), folder)
    events.emit(Note(f"report: {page}"))
    return page


def write_run_report(run: RunFolder, plan: Plan) -> Path:
    """Write ``report.html`` and its pictures from what lies in a run's folder; at least one evaluation must be there."""
    return write_report(
        Material(
            title=run.path.name,
            evaluations=_evaluations(run),
            layers=kept_layer_comparison(run),
            metrics=read_metrics(run.metrics),
            recipe=yaml.safe_dump(
                plan.recipe.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False, allow_unicode=True
            ),
            environment=_environment(plan),
            facts=_facts(plan),
            benchmark=_read(run.export / "benchmark.json"),
        ),
        run.path,
    )


def kept_layer_comparison(run: RunFolder) -> LayerComparison | None:
    """The similarity of layers that a run's folder holds; None without it, or where another version wrote it."""
    data = _read(run.path / INTERNALS)
    try:
        return None if data is None else LayerComparison.model_validate(data)
    except ValidationError:
        return None


def refresh_report(run: RunFolder, plan: Plan) -> None:
    """Write a run's report again, where it has one, with what has come since."""
    if (run.path / REPORT).is_file() and _evaluations(run):
        write_run_report(run, plan)


def _document(run: RunFolder, split: str) -> Path:
    return run.evaluation if split == DEV else run.evaluation.with_name(f"evaluation-{split}.json")


def _evaluations(run: RunFolder) -> list[Evaluation]:
    """The evaluations that a run's folder holds, test first; those of earlier versions are left out."""
    found = []
    for split in (TEST, DEV):
        data = _read(_document(run, split))
        try:
            found += [] if data is None else [Evaluation.model_validate(data)]
        except ValidationError:
            continue
    return found


def _environment(plan: Plan) -> dict[str, str]:
    """What the run was made with."""
    splits = {
        f"{name} split": f"{split.rows} rows, {split.source} ({split.fingerprint})" for name, split in plan.task.splits.items()
    }
    return {
        "kdcli": __version__,
        "seed": str(plan.request["seed"]),
        "device": plan.device,
        "precision": plan.precision,
        **splits,
        **plan.versions,
    }


def _facts(plan: Plan) -> list[tuple[str, str]]:
    """What student and teachers are."""
    found = []
    if plan.student is not None:
        student = plan.student
        size = f"{student.layers} layers of width {student.width}, {student.heads} heads, {student.parameters:,} parameters"
        found.append(("student", f"{student.model_type}, {size}; began with {plan.first_weights(student)}"))
    if plan.alone is not None:
        found.append(("student without teachers", f"began with {plan.first_weights(plan.alone, 'pretrained')}"))
    for teacher in plan.teachers:
        size = f"{teacher.layers} layers of width {teacher.width}, {teacher.heads} heads, {teacher.parameters:,} parameters"
        weights = f"; weights {teacher.fingerprint}" if teacher.fingerprint else ""
        found.append(
            (f"teacher {teacher.name}", f"{teacher.model_type}, {size}; {teacher.reference} ({teacher.kind}){weights}")
        )
    return found


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
