"""From what the user said about the data (``--task``, ``--data``, ``--eval``, ``--test``, columns) to a :class:`Task`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdcli.data.columns import Choice, choose, fixed, index_columns, like
from kdcli.data.hub_datasets import hub_columns
from kdcli.data.missing_values import (
    check_labels,
    check_texts,
    overlap,
    rows_without,
    without_rows,
)
from kdcli.data.presets import PRESETS, FileLayout, Preset
from kdcli.data.readers import SUFFIXES, read
from kdcli.data.splits import DEV, TEST, TRAIN, UNLABELLED
from kdcli.data.table import Columns
from kdcli.data.task import Split, Task
from kdcli.errors import Problem, RequestError, did_you_mean
from kdcli.tasks.kind import Kind
from kdcli.tasks.kinds import kind_like, kinds
from kdcli.tasks.metric import Values
from kdcli.tasks.target_column import Column, count_rows, where_rows

HELD_OUT = 0.1
_HOLD_OUT_SEED = 0
_BROKEN_ROWS_IN_PRESETS = 0.001
_STEMS = {TRAIN: ("train",), DEV: ("dev", "validation", "valid", "val", "eval"), TEST: ("test",)}
_HUB_SPLITS = {TRAIN: ("train",), DEV: ("validation", "dev", "valid", "val", "eval"), TEST: ("test",)}
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
    kind: str | None = None
    train_rows: int | None = None
    unlabelled: str | None = None

    @property
    def is_starter(self) -> bool:
        """Whether nothing was said, so that the starter task is meant."""
        return self.task in (None, "starter") and self.data is None

    @property
    def is_one_file(self) -> bool:
        """Whether a file was named, and nothing that would say what it is to be divided into."""
        alone = self.task is None and self.eval is None and self.test is None
        return alone and self.data is not None and Path(self.data).is_file()


def load_scored(request: DataRequest, known: Kind | None = None) -> Task:
    """All rows of one file as a test split, for models that are scored on it and not trained.

    Nothing is held out, and a single row or a single class is enough.

    Args:
        request: names a file (see :attr:`DataRequest.is_one_file`).
        known: the task of the model that is scored. The file is of the same where that covers its targets; else its task is
            the file's own, for the caller to match.

    Raises:
        RequestError: missing or broken file, wrong column, a row without a text or a label.
    """
    assert request.data is not None
    path = Path(request.data)
    columns = read(path)
    choice = choose(columns, request.text_column, request.text_pair_column, request.label_column, needs_label=False)
    if choice.label is None:
        raise _no_labels(columns, request.label_column or "label")
    table = _Table(columns, choice)
    _check_table(TEST, table)
    column = table.targets
    kind = known if known is not None and known.covers(column) else _kind_asked(request, column).of_scored(column)
    notes = _notes_of_tables({TEST: table}, kind, preset=False)
    metric = request.metric or next(iter(kind.metrics))
    return Task(_custom_name(request), kind, metric, {TEST: _split(table, kind)}, tuple(notes), choice)


def load_task(request: DataRequest) -> Task:
    """Read the splits, match the labels and hold a dev split out of train where none was given.

    A test split without labels is left out with a note: nothing is trained on it, and :attr:`Task.unscored` says why.

    Raises:
        RequestError: unknown task, missing or broken file, wrong column, unknown label, one class only, a row without a value.
    """
    if request.task is not None:
        preset = _preset(request.task)
        tables = _preset_tables(preset, request)
        task = _build(preset.name, tables, preset.kind, request, preset.metric)
    else:
        tables = _custom_tables(request)
        task = _build(_custom_name(request), tables, None, request)
    return _with_overlaps(_with_unlabelled(_with_dev(_with_fewer_rows(task, request.train_rows)), request))


@dataclass(frozen=True)
class _Table:
    columns: Columns
    choice: Choice

    @property
    def targets(self) -> Column:
        """The column of the targets, which is there."""
        assert self.choice.label is not None
        columns = self.columns
        return Column(columns.source, self.choice.label, columns.cells[self.choice.label], columns.lines)


def _preset(name: str) -> Preset:
    key = name.lower().replace("_", "-").replace("sst-2", "sst2").replace("sts-b", "stsb")
    if key in PRESETS:
        return PRESETS[key]
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
            tables[split] = _preset_table(path, layout, split)
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
            tables[split] = _preset_table(Path(given), preset.files[DEV], split)
    return tables


def _preset_table(path: Path, layout: FileLayout, split: str) -> _Table:
    """A file as it is distributed, without its few rows that lack a value."""
    columns = read(path, layout.header, broken_rows_allowed=_BROKEN_ROWS_IN_PRESETS)
    choice = fixed(columns, layout.text, layout.pair, layout.label, needs_label=split != TEST)
    return _Table(_without_few_broken(columns, choice), choice)


def _without_few_broken(columns: Columns, choice: Choice) -> Columns:
    """Known data sets have a few rows without a text: these are left out with a note; more of them are refused later."""
    names = [name for name in (choice.text, choice.pair, choice.label) if name is not None]
    gone = sorted({row for name in names for row in rows_without(columns, name, words=False)})
    if not gone or len(gone) > max(1, _BROKEN_ROWS_IN_PRESETS * len(columns)):
        return columns
    kept = without_rows(columns, gone)
    note = f"{columns.source}: left out {count_rows(len(gone))} without a text or a label ({where_rows(columns, gone)})"
    return replace(kept, notes=[*columns.notes, note])


def _first_existing(folder: Path, layout: FileLayout) -> Path | None:
    return next((folder / pattern for pattern in layout.patterns if (folder / pattern).is_file()), None)


def _custom_tables(request: DataRequest) -> dict[str, _Table]:
    assert request.data is not None
    given = _custom_files(request)
    if given is None:
        return _hub_tables(request)
    return _tables_of({split: read(path) for split, path in given.items()}, request)


def _tables_of(tables: Mapping[str, Columns], request: DataRequest) -> dict[str, _Table]:
    """All splits with the columns of the training split."""
    train = tables[TRAIN]
    first = choose(train, request.text_column, request.text_pair_column, request.label_column)
    others = {split: columns for split, columns in tables.items() if split != TRAIN}
    return {TRAIN: _Table(train, first)} | {
        split: _Table(columns, like(columns, first, train.source)) for split, columns in others.items()
    }


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


def _no_labels(columns: Columns, label: str) -> RequestError:
    return RequestError(
        Problem(
            columns.source,
            f"has no labels: there is no column {label!r}",
            "a column with the class of each row, under the same name in all files (--label-column NAME)",
            ", ".join(columns.cells),
        )
    )


def _check_table(split: str, table: _Table) -> None:
    """Every row has its texts and its label.

    Raises:
        RequestError: with the number of rows that have not, and the first lines.
    """
    check_texts(table.columns, table.choice)
    if table.choice.label is not None:
        check_labels(table.columns, table.choice.label, _way_on(split, table))


def _way_on(split: str, table: _Table) -> str:
    """What can be done about rows without a label."""
    if not Path(table.columns.source).exists():
        kept = f"dataset.filter(lambda row: row[{table.choice.label!r}] != -1).to_csv({split + '.csv'!r})"
        return f"--data DIR with the labelled rows in files: {kept}"
    if split == TRAIN:
        return "take these rows out of the file; --unlabelled FILE takes them as texts that the student is taught on"
    return "take these rows out of the file: what has no label cannot be scored"


def _kind_asked(request: DataRequest, column: Column) -> type[Kind]:
    """The kind of task that the user named, else the one that the targets look like.

    Raises:
        RequestError: there is no such kind.
    """
    if request.kind is None:
        return kind_like(column)
    if request.kind not in kinds():
        hint = did_you_mean(request.kind, kinds())
        raise RequestError(
            Problem(f"--kind {request.kind}", "there is no such kind of task", "one of " + ", ".join(kinds()), remedy=hint)
        )
    return kinds()[request.kind]


def _build(
    name: str, tables: Mapping[str, _Table], known: Kind | None, request: DataRequest, metric: str | None = None
) -> Task:
    tables, unscored = _scorable(tables)
    for split, table in tables.items():
        _check_table(split, table)
    train = tables[TRAIN]
    odd: list[str] = []
    if known is None:
        kind, odd = _kind_asked(request, train.targets).of_column(train.targets)
    else:
        kind = known
        if request.kind not in (None, kind.name):
            raise RequestError(
                Problem(f"--kind {request.kind}", f"{name} is a task of another kind", kind.name, remedy="leave out --kind")
            )
        if len(set(train.targets.cells)) < 2:
            type(kind).of_column(train.targets)  # which says what is wrong
    notes = _notes_of_tables(tables, kind, preset=known is not None) + odd
    notes += [f"{split} is not scored: {error.problems[0].where} {error.problems[0].what}" for split, error in unscored.items()]
    splits = {split: _split(table, kind) for split, table in tables.items()}
    chosen = request.metric or metric or next(iter(kind.metrics))
    return Task(name, kind, chosen, splits, tuple(notes), train.choice, unscored)


def _scorable(tables: Mapping[str, _Table]) -> tuple[dict[str, _Table], dict[str, RequestError]]:
    """The splits with labels, and why the test split is not among them where it has none at all.

    Raises:
        RequestError: the dev split has no labels.
    """
    unscored = {}
    label = tables[TRAIN].choice.label
    assert label is not None
    for split, table in tables.items():
        error = _without_any_label(table, label)
        if error is not None and split == TEST:
            unscored[split] = error
        elif error is not None:
            raise error
    return {split: table for split, table in tables.items() if split not in unscored}, unscored


def _without_any_label(table: _Table, label: str) -> RequestError | None:
    if table.choice.label is None:
        return _no_labels(table.columns, label)
    if len(rows_without(table.columns, table.choice.label)) == len(table.columns):
        what = f"has no labels: none of its {count_rows(len(table.columns))} has one in column {table.choice.label!r}"
        return RequestError(Problem(table.columns.source, what, "the class of each row"))
    return None


def _notes_of_tables(tables: Mapping[str, _Table], kind: Kind, *, preset: bool) -> list[str]:
    notes = []
    for table in tables.values():
        source = table.columns.source
        if table.columns.skipped:
            notes.append(f"{source}: left out {len(table.columns.skipped)} broken rows")
        notes += table.columns.notes
        notes += [f"{source}: {sentence}" for sentence in kind.remarks(table.targets)]
        if not preset:
            notes += kind.doubtful(table.targets)
            said = f"{source}: columns taken: {table.choice}"
            if not table.choice.is_plain and not any(str(table.choice) in note for note in notes):
                notes.append(said)
    return notes


def _split(table: _Table, kind: Kind) -> Split:
    columns, choice = table.columns, table.choice
    pairs = None if choice.pair is None else columns.cells[choice.pair]
    ids = {name: columns.cells[name] for name in index_columns(columns) if name in choice.left_out}
    return Split(columns.cells[choice.text], pairs, kind.read(table.targets), columns.source, columns.fingerprint, ids)


def _with_fewer_rows(task: Task, rows: int | None) -> Task:
    if rows is None or rows >= len(task.train):
        return task
    if rows < 2:
        raise RequestError(Problem(f"--train-rows {rows}", "is too few to train on", "2 or more"))
    chosen = np.random.default_rng(_HOLD_OUT_SEED).permutation(len(task.train))[:rows]
    note = f"train: {rows} of {len(task.train)} rows, drawn at random (--train-rows)"
    drawn = task.train.select(np.sort(chosen))
    assert task.train.targets is not None
    assert drawn.targets is not None
    if not task.kind.is_trainable(drawn.targets):
        raise RequestError(Problem(f"--train-rows {rows}", "draws rows of a single class", remedy="more rows"))
    gone = task.kind.lost(task.train.targets, drawn.targets)
    notes = [note] if gone is None else [note, f"train: none of the rows that were drawn is of {gone}"]
    return replace(task, splits=dict(task.splits) | {TRAIN: drawn}, notes=(*task.notes, *notes))


def _with_unlabelled(task: Task, request: DataRequest) -> Task:
    """The task with further texts that nobody has labelled; columns are found as in the training file."""
    if request.unlabelled is None:
        return task
    path = Path(request.unlabelled)
    if not path.is_file():
        raise RequestError(Problem(f"--unlabelled {path}", "there is no such file"))
    columns = read(path)
    assert task.columns is not None
    choice = like(columns, task.columns, task.train.source)
    check_texts(columns, choice)
    pairs = None if choice.pair is None else columns.cells[choice.pair]
    more = Split(columns.cells[choice.text], pairs, None, columns.source, columns.fingerprint)
    if not len(more):
        raise RequestError(Problem(str(path), "has no rows"))
    note = f"unlabelled: {len(more)} rows from {path.name}, for the student alone"
    splits = dict(task.splits) | {UNLABELLED: more}
    return replace(task, splits=splits, notes=(*task.notes, *columns.notes, note))


def _with_overlaps(task: Task) -> Task:
    """Notes on samples that stand in two splits: what was trained on proves nothing."""
    notes = []
    known = {name: split for name, split in task.splits.items() if name in (TRAIN, DEV, TEST)}
    for first, second in ((TRAIN, DEV), (TRAIN, TEST), (DEV, TEST)):
        if first in known and second in known:
            shared = overlap(known[first].samples, known[second].samples)
            if shared == len(known[second]):
                notes.append(f"all {shared} rows of {second} are in {first} as well: a score on {second} proves nothing")
            elif shared:
                notes.append(f"{shared} of {len(known[second])} rows of {second} are in {first} as well, word for word")
    return replace(task, notes=(*task.notes, *notes))


def _with_dev(task: Task) -> Task:
    if DEV in task.splits:
        return task
    assert task.train.targets is not None
    train, dev = hold_out(task.kind, task.train.targets)
    note = f"dev: {len(dev)} rows held out of train ({HELD_OUT:.0%}, by class, always the same ones)"
    splits = {TRAIN: task.train.select(train), DEV: task.train.select(dev)}
    splits |= {name: split for name, split in task.splits.items() if name != TRAIN}
    small = task.kind.lost(task.train.targets[train], task.train.targets[dev])
    notes = [note] if small is None else [note, f"dev: too few rows of {small} to hold any out"]
    return replace(task, splits=splits, notes=(*task.notes, *notes))


def hold_out(kind: Kind, targets: Values, fraction: float = HELD_OUT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on and to hold out, so that both are alike.

    The draw does not depend on the run's seed, so that runs with different seeds are scored on the same rows.
    """
    dev = kind.hold_out(targets, fraction, np.random.default_rng(_HOLD_OUT_SEED))
    if len(dev) == 0:
        raise RequestError(
            Problem("--data", f"{len(targets)} rows are too few to hold a dev split out of", remedy="--eval dev.csv")
        )
    return np.setdiff1d(np.arange(len(targets)), dev), dev


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
        choice = fixed(columns, text, pair, label)
        tables[split] = _Table(_without_few_broken(columns, choice), choice)
    return tables


def _hub_tables(request: DataRequest) -> dict[str, _Table]:
    assert request.data is not None
    name, _, configuration = request.data.partition(":")
    found: dict[str, Columns] = {}
    for split, candidates in _HUB_SPLITS.items():
        for candidate in candidates:
            try:
                found[split] = hub_columns(name, configuration or None, candidate, f"--data {request.data}")
            except KeyError:
                continue
            break
    if TRAIN not in found:
        raise RequestError(Problem(f"--data {request.data}", "the Hub dataset has no split 'train'"))
    files = ((DEV, request.eval), (TEST, request.test))
    found |= {split: read(Path(path)) for split, path in files if path is not None}
    return _tables_of(found, request)
