"""From what the user said about the data (``--task``, ``--data``, ``--eval``, ``--test``, columns) to a :class:`Task`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.data.hub import hub_columns
from kdcli.data.presets import PRESETS, FileLayout, Preset
from kdcli.data.readers import SUFFIXES, Columns, read
from kdcli.data.task import DEV, TEST, TRAIN, UNLABELLED, Split, Task
from kdcli.errors import Problem, RequestError, did_you_mean

HELD_OUT = 0.1
_HOLD_OUT_SEED = 0
_BROKEN_ROWS_IN_PRESETS = 0.001
_STEMS = {TRAIN: ("train",), DEV: ("dev", "validation", "valid", "val", "eval"), TEST: ("test",)}
_TEXT_NAMES = ("text", "sentence", "title", "question", "content", "review", "utterance", "query", "sentence1")
_LABEL_NAMES = ("label", "labels", "category", "intent", "class", "target", "topic")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class DataRequest:
    """What the user said about the data; see ``kdcli distill --help`` for each flag."""

    task: str | None = None
    data: str | None = None
    eval: str | None = None
    test: str | None = None
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str | None = None
    metric: str | None = None
    train_rows: int | None = None
    unlabelled: str | None = None

    @property
    def is_starter(self) -> bool:
        """Whether nothing was said, so that the starter task is meant."""
        return self.task in (None, "starter") and self.data is None


def load_task(request: DataRequest) -> Task:
    """Read the splits, match the labels and hold a dev split out of train where none was given.

    Raises:
        RequestError: unknown task, missing or broken file, wrong column, unknown label, one class only.
    """
    if request.task is not None:
        preset = _preset(request.task)
        tables = _preset_tables(preset, request)
        task = _build(preset.name, tables, dict(preset.labels), request.metric or preset.metric)
    else:
        tables = _custom_tables(request)
        task = _build(_custom_name(request), tables, None, request.metric or "accuracy")
    return _with_unlabelled(_with_dev(_with_fewer_rows(task, request.train_rows)), request)


@dataclass(frozen=True)
class _Table:
    columns: Columns
    text: str
    pair: str | None
    label: str | None


def _preset(name: str) -> Preset:
    key = name.lower().replace("_", "-").replace("sst-2", "sst2")
    if key in PRESETS:
        return PRESETS[key]
    if key in ("sts-b", "stsb"):
        raise RequestError(Problem(f"--task {name}", "is a regression task; kdcli distills classifiers"))
    raise RequestError(
        Problem(
            f"--task {name}",
            "there is no such task",
            "one of " + ", ".join(PRESETS) + "; for other data give --data and no --task",
            remedy=did_you_mean(key, PRESETS),
        )
    )


def _preset_tables(preset: Preset, request: DataRequest) -> dict[str, _Table]:
    if request.data is None:
        return _hub_preset_tables(preset)
    folder = Path(request.data)
    if not folder.is_dir():
        raise RequestError(
            Problem(f"--data {request.data}", "there is no such folder", f"the folder of {preset.name} as distributed")
        )
    tables: dict[str, _Table] = {}
    for split, layout in preset.files.items():
        path = _first_existing(folder, layout)
        if path is not None:
            columns = read(path, layout.header, broken_rows_allowed=_BROKEN_ROWS_IN_PRESETS)
            tables[split] = _table(columns, layout.text, layout.pair, layout.label, request)
        elif split == TRAIN:
            raise RequestError(
                Problem(
                    f"--data {request.data}",
                    f"the training file of {preset.name} is not there",
                    " or ".join(str(folder / pattern) for pattern in layout.patterns),
                    ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "an empty folder",
                )
            )
    for split, given in ((DEV, request.eval), (TEST, request.test)):
        if given is not None:
            layout = preset.files[DEV]
            columns = read(Path(given), layout.header, broken_rows_allowed=_BROKEN_ROWS_IN_PRESETS)
            tables[split] = _table(columns, layout.text, layout.pair, layout.label, request)
    return tables


def _first_existing(folder: Path, layout: FileLayout) -> Path | None:
    return next((folder / pattern for pattern in layout.patterns if (folder / pattern).is_file()), None)


def _custom_tables(request: DataRequest) -> dict[str, _Table]:
    assert request.data is not None
    given = _custom_files(request)
    if given is None:
        return _hub_tables(request)
    return {split: _custom_table(path, request) for split, path in given.items()}


def _custom_files(request: DataRequest) -> dict[str, Path] | None:
    """The files of each split, or None where ``--data`` names a Hub dataset."""
    assert request.data is not None
    path = Path(request.data)
    if path.is_dir():
        files = _files_in(path)
    elif path.is_file():
        files = {TRAIN: path}
    elif _HUB_ID.fullmatch(request.data) and path.suffix not in SUFFIXES and not path.parent.is_dir():
        return None
    else:
        raise RequestError(Problem(f"--data {request.data}", "there is no such file or folder"))
    files |= {split: Path(name) for split, name in ((DEV, request.eval), (TEST, request.test)) if name is not None}
    return files


def _files_in(folder: Path) -> dict[str, Path]:
    files = {}
    for split, stems in _STEMS.items():
        candidates = [folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]
        path = next((path for path in candidates if path.is_file()), None)
        if path is not None:
            files[split] = path
    if TRAIN not in files:
        raise RequestError(
            Problem(
                f"--data {folder}",
                "there is no training file in the folder",
                "train.csv, train.tsv, train.jsonl or train.parquet (with --task, the files as distributed)",
                ", ".join(sorted(entry.name for entry in folder.iterdir())[:12]) or "an empty folder",
            )
        )
    return files


def _custom_table(path: Path, request: DataRequest) -> _Table:
    columns = read(path)
    names = list(columns.cells)
    text = request.text_column or _guess(names, _TEXT_NAMES)
    label = request.label_column or _guess(names, _LABEL_NAMES)
    pair = request.text_pair_column
    if pair is None and text == "sentence1" and "sentence2" in names:
        pair = "sentence2"
    if text is None or label is None:
        missing, flag = ("text", "--text-column") if text is None else ("label", "--label-column")
        raise RequestError(
            Problem(
                str(path),
                f"no column could be taken as the {missing}",
                f"a column called {missing}, or {flag} NAME",
                ", ".join(names),
                _layout_hint(path) or columns.hint,
            )
        )
    return _table(columns, text, pair, label, request)


def _layout_hint(path: Path) -> str:
    folders = {part.lower().replace("-", "").replace("_", "") for part in path.parts}
    known = [name for name in PRESETS if name in folders]
    return f"--task {known[0]}" if known else ""


def _guess(names: list[str], known: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in names}
    return next((lowered[name] for name in known if name in lowered), None)


def _table(columns: Columns, text: str, pair: str | None, label: str, request: DataRequest) -> _Table:
    asked = {"--text-column": text, "--text-pair-column": pair, "--label-column": label}
    for flag, name in asked.items():
        if name is not None and name not in columns.cells:
            raise RequestError(
                Problem(
                    columns.source,
                    f"there is no column {name!r}",
                    f"one of {', '.join(columns.cells)}",
                    remedy=f"{flag} " + (_nearest(name, list(columns.cells))),
                )
            )
        _refuse_missing(columns, name)
    return _Table(columns, text, pair, label)


def _refuse_missing(columns: Columns, name: str | None) -> None:
    if name is not None and name in columns.missing:
        line = columns.lines[columns.missing[name][0]]
        raise RequestError(Problem(f"{columns.source}:{line}", f"the value of {name!r} is missing or null"))


def _nearest(name: str, names: list[str]) -> str:
    hint = did_you_mean(name, names)
    return hint.split("'")[1] if hint else names[0]


def _build(name: str, tables: Mapping[str, _Table], labels: dict[str, str] | None, metric: str) -> Task:
    if labels is None:
        raw = _sorted_labels(tables[TRAIN])
        labels = {value: value for value in raw}
    classes = {value: row for row, value in enumerate(labels)}
    if labels.keys() != set(labels.values()):
        classes |= {readable: row for row, readable in enumerate(labels.values())}
    notes = []
    splits = {}
    for split, table in tables.items():
        splits[split] = _split(table, classes, list(labels))
        if table.columns.skipped:
            notes.append(f"{table.columns.source}: left out {len(table.columns.skipped)} broken rows")
    _refuse_single_class(splits[TRAIN], tables[TRAIN], list(labels.values()))
    return Task(name, tuple(labels.values()), tuple(labels), metric, splits, tuple(notes))


def _sorted_labels(table: _Table) -> list[str]:
    assert table.label is not None
    values = set(table.columns.cells[table.label])
    numbers = all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)
    return sorted(values, key=lambda value: (float(value), value)) if numbers else sorted(values)


def _split(table: _Table, classes: Mapping[str, int], known: list[str]) -> Split:
    assert table.label is not None
    cells = table.columns.cells
    labels = np.empty(len(table.columns), dtype=np.int64)
    for row, value in enumerate(cells[table.label]):
        if value not in classes:
            raise RequestError(
                Problem(
                    f"{table.columns.source}:{table.columns.lines[row]}",
                    f"unknown label {value!r} in column {table.label!r}",
                    "one of " + ", ".join(known[:20]) + ("…" if len(known) > 20 else ""),
                    remedy=did_you_mean(value, known),
                )
            )
        labels[row] = classes[value]
    pairs = None if table.pair is None else cells[table.pair]
    return Split(cells[table.text], pairs, labels, table.columns.source, table.columns.fingerprint)


def _refuse_single_class(split: Split, table: _Table, names: list[str]) -> None:
    assert split.labels is not None
    present = np.unique(split.labels)
    if len(present) < 2:
        raise RequestError(
            Problem(
                table.columns.source,
                f"all {len(split)} rows have the same label",
                "at least two classes",
                repr(names[int(present[0])]),
                "--label-column NAME, if another column holds the classes",
            )
        )


def _with_fewer_rows(task: Task, rows: int | None) -> Task:
    if rows is None or rows >= len(task.train):
        return task
    if rows < 2:
        raise RequestError(Problem(f"--train-rows {rows}", "is too few to train on", "2 or more"))
    chosen = np.random.default_rng(_HOLD_OUT_SEED).permutation(len(task.train))[:rows]
    note = f"train: {rows} of {len(task.train)} rows, drawn at random (--train-rows)"
    splits = dict(task.splits) | {TRAIN: task.train.select(np.sort(chosen))}
    return replace(task, splits=splits, notes=(*task.notes, note))


def _with_unlabelled(task: Task, request: DataRequest) -> Task:
    """The task with further texts that nobody has labelled; columns are found as in the training file."""
    if request.unlabelled is None:
        return task
    path = Path(request.unlabelled)
    if not path.is_file():
        raise RequestError(Problem(f"--unlabelled {path}", "there is no such file"))
    columns = read(path)
    names = list(columns.cells)
    text = request.text_column if request.text_column in names else _guess(names, _TEXT_NAMES)
    pair = (request.text_pair_column or "sentence2") if task.has_pairs else None
    for what, flag, name in (("text", "--text-column", text), ("second text", "--text-pair-column", pair)):
        if (what == "text" or pair is not None) and name not in names:
            raise RequestError(Problem(str(path), f"no column could be taken as the {what}", f"{flag} NAME", ", ".join(names)))
        _refuse_missing(columns, name)
    assert text is not None
    pairs = None if pair is None else columns.cells[pair]
    more = Split(columns.cells[text], pairs, None, columns.source, columns.fingerprint)
    if not len(more):
        raise RequestError(Problem(str(path), "has no rows"))
    note = f"unlabelled: {len(more)} rows from {path.name}, for the student alone"
    return replace(task, splits=dict(task.splits) | {UNLABELLED: more}, notes=(*task.notes, note))


def _with_dev(task: Task) -> Task:
    if DEV in task.splits:
        return task
    assert task.train.labels is not None
    train, dev = hold_out(task.train.labels)
    note = f"dev: {len(dev)} rows held out of train ({HELD_OUT:.0%}, by class, always the same ones)"
    splits = {TRAIN: task.train.select(train), DEV: task.train.select(dev)}
    splits |= {name: split for name, split in task.splits.items() if name != TRAIN}
    return replace(task, splits=splits, notes=(*task.notes, note))


def hold_out(labels: NDArray[np.int64], fraction: float = HELD_OUT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to hold out, the classes in proportion.

    The draw does not depend on the run's seed, so that runs with different seeds are scored on the same rows.
    """
    generator = np.random.default_rng(_HOLD_OUT_SEED)
    held = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held.append(rows[: round(fraction * len(rows))])
    dev = np.sort(np.concatenate(held))
    if len(dev) == 0:
        raise RequestError(
            Problem("--data", f"{len(labels)} rows are too few to hold a dev split out of", remedy="--eval dev.csv")
        )
    return np.setdiff1d(np.arange(len(labels)), dev), dev


def _custom_name(request: DataRequest) -> str:
    assert request.data is not None
    path = Path(request.data)
    stem = path.parent.resolve().name if path.stem in ("train", "data") and path.is_file() else path.resolve().stem
    if not path.exists():
        stem = request.data.split("/")[-1]
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "task"


def _hub_preset_tables(preset: Preset) -> dict[str, _Table]:
    if preset.hub is None:
        raise RequestError(
            Problem(
                f"--task {preset.name}",
                "its files are not on the Hub",
                f"--data DIR with the files as distributed ({preset.files[TRAIN].patterns[0]}, …)",
            )
        )
    text, pair, label = preset.hub_columns
    tables = {}
    for split, there in preset.hub_splits.items():
        columns = hub_columns(*preset.hub, there, f"--task {preset.name}")
        tables[split] = _Table(columns, text, pair, label)
    return tables


def _hub_tables(request: DataRequest) -> dict[str, _Table]:
    assert request.data is not None
    name, _, configuration = request.data.partition(":")
    tables: dict[str, _Table] = {}
    for split, candidates in {TRAIN: ("train",), DEV: ("validation", "dev"), TEST: ("test",)}.items():
        for candidate in candidates:
            try:
                columns = hub_columns(name, configuration or None, candidate, f"--data {request.data}")
            except KeyError:
                continue
            names = list(columns.cells)
            text = request.text_column or _guess(names, _TEXT_NAMES) or names[0]
            label = request.label_column or _guess(names, _LABEL_NAMES) or names[-1]
            tables[split] = _table(columns, text, request.text_pair_column, label, request)
            break
    if TRAIN not in tables:
        raise RequestError(Problem(f"--data {request.data}", "the Hub dataset has no split 'train'"))
    return tables
