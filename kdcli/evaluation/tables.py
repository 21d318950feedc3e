"""An evaluation as CSV files, for spreadsheets and further questions."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from kdcli.atomic_files import whole_folder, write_text
from kdcli.data.task import Task
from kdcli.evaluation.agreement import changed_rows
from kdcli.evaluation.comparison import ModelOutputs, with_distinct_names
from kdcli.evaluation.document import Evaluation, ModelScore

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # and their full-width forms
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
Row = Mapping[str, Any]
_LONGEST = 60


def write_tables(folder: Path, task: Task, evaluation: Evaluation, entries: Sequence[ModelOutputs]) -> None:
    """Write the tables of an evaluation into a folder of their own, which is replaced as a whole.

    A text that a spreadsheet would run as a formula has an apostrophe before it.

    ``scores.csv`` (a row per model), ``classes.csv`` (a row per model and class), ``differences.csv``, ``recipes.csv`` (a row
    per run), ``predictions.csv`` (a row per sample, a column per model), and for each student and teacher
    ``changed-STUDENT-TEACHER.csv`` (the samples that they answer differently) and ``slices-….csv`` (where it lost most).
    """
    with whole_folder(folder) as partial:
        for name, rows in _tables(task, evaluation, entries):
            if rows:
                write_text(partial / f"{name}.csv", as_csv(rows))


def _tables(task: Task, evaluation: Evaluation, entries: Sequence[ModelOutputs]) -> Iterator[tuple[str, Sequence[Row]]]:
    split = task.splits[evaluation.split]
    entries = [entry for entry in with_distinct_names(entries, task.kind) if not entry.not_finite]
    by_name = {entry.name: entry for entry in entries}
    without = [{"model": each.name, "role": each.role, "not finite": each.not_finite} for each in evaluation.unscored]
    yield "scores", [*(_score_row(evaluation, model) for model in evaluation.models), *without]
    yield "classes", [{"model": model.name, **one.model_dump()} for model in evaluation.models for one in model.classes]
    yield "differences", [difference.model_dump() for difference in evaluation.differences]
    yield (
        "recipes",
        [
            {"recipe": recipe.name, "seed": seed, evaluation.metric: score, "model": recipe.models[seed]}
            for recipe in evaluation.recipes
            for seed, score in recipe.scores.items()
        ],
    )
    yield "predictions", list(_predictions(task, evaluation, entries))
    pairs: list[str] = []
    for table in evaluation.agreements:
        student, teacher = by_name[table.student].predictions, by_name[table.teacher].predictions
        pair = _unlike(f"{_plain(table.student)}-{_plain(table.teacher)}", pairs)
        pairs.append(pair)
        yield f"changed-{pair}", changed_rows(split, task.kind, task.kind.metric(evaluation.metric), teacher, student)
        yield f"slices-{pair}", [one.row() for one in table.slices]


def _unlike(name: str, known: Sequence[str]) -> str:
    """A file name that others have not, on disks too that do not tell A from a."""
    taken = {each.casefold() for each in known}
    numbered = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(each for each in numbered if each.casefold() not in taken)


def _score_row(evaluation: Evaluation, model: ModelScore) -> Row:
    kept, of_all = model.retention, model.retention_of_ensemble
    calibration = model.calibration
    return {
        "model": model.name,
        "role": model.role,
        **model.scores,
        f"{evaluation.metric} low": model.interval[0],
        f"{evaluation.metric} high": model.interval[1],
        "best teacher": kept.of if kept else None,
        "of best teacher": kept.value if kept else None,
        "of best teacher low": kept.low if kept else None,
        "of best teacher high": kept.high if kept else None,
        "of ensemble": of_all.value if of_all else None,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "ece": calibration.ece if calibration else None,
        "nll": calibration.nll if calibration else None,
        "temperature": calibration.temperature if calibration else None,
        "at chance": model.chance.at_chance if model.chance else None,
        "not finite": 0,
        "path": model.path,
    }


def _predictions(task: Task, evaluation: Evaluation, entries: Sequence[ModelOutputs]) -> Iterator[Row]:
    split = task.splits[evaluation.split]
    assert split.targets is not None
    for row, text in enumerate(split.texts):
        yield {
            "row": row,
            "label": task.kind.written(split.targets[row]),
            **{f"model {entry.name}": task.kind.written(entry.predictions[row]) for entry in entries},
            "text": text,
            **({"pair": split.pairs[row]} if split.pairs is not None else {}),
        }


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as the text of a CSV file; the first one has the names of the columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # else a lone CR would end a row
    writer.writerow(map(_cell, rows[0]))
    writer.writerows([_cell(row.get(name)) for name in rows[0]] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take as a formula with an apostrophe before it; numbers stay numbers."""
    if isinstance(value, str) and value.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return f"'{value}" if isinstance(value, str) and value.startswith(("\t", "\r", "\n")) else value


def _plain(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^\w.-]+", "-", name)[:_LONGEST].strip("-.") or "model"
