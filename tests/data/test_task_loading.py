"""From what the user said about the data to a task: the layouts as they are distributed, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.data.task import Split, Task
from kdcli.data.task_loading import DataRequest, hold_out, load_task
from kdcli.errors import Problem, RequestError
from kdcli.tasks.classification import Classification
from tests.conftest import SHARED, needs_shared

_MNLI_TRAIN = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_TRAIN = [*_MNLI_TRAIN.split(), "sentence1", "sentence2", "label1", "gold_label"]
MNLI_DEV = [*MNLI_TRAIN[:-1], "label2", "label3", "label4", "label5", "gold_label"]
PARSED = ["0", "p", "p", "fiction", "( a )", "( b )", "(ROOT a)", "(ROOT b)"]


def write(path: Path, *rows: list[str]) -> Path:
    """Rows as tab-separated lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join("\t".join(row) + "\n" for row in rows).encode())
    return path


def write_csv(path: Path, rows: int, classes: int = 2, first: int = 0) -> Path:
    """Rows ``text 0,class 0``, ``text 1,class 1``, …"""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"text {row},class {row % classes}\n" for row in range(first, first + rows)]
    path.write_text("text,label\n" + "".join(lines), encoding="utf-8")
    return path


def without_overlaps(task: Task) -> list[str]:
    """The notes but those on samples that stand in two splits."""
    return [note for note in task.notes if " as well" not in note]


def load(task: str | None, data: Path | str, **more: str | int) -> Task:
    return load_task(DataRequest(task=task, data=str(data), **more))  # type: ignore[arg-type]


def refused(task: str | None, data: Path | str | None, **more: str | int) -> Problem:
    with pytest.raises(RequestError) as caught:
        load_task(DataRequest(task=task, data=None if data is None else str(data), **more))  # type: ignore[arg-type]
    (problem,) = caught.value.problems
    return problem


def samples(split: Split) -> list[tuple[str, ...]]:
    pairs = split.pairs if split.pairs is not None else [None] * len(split)
    return [(text,) if pair is None else (text, pair) for text, pair in zip(split.texts, pairs, strict=True)]


def classes(task: Task, split: str = TRAIN) -> list[str]:
    labels = task.splits[split].targets
    assert labels is not None
    assert labels.dtype == np.int64
    return [task.kind.class_names[label] for label in labels]


# The tasks as they are distributed.


def test_a_known_task_is_of_its_own_kind_and_others_of_the_one_that_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["gj04", "1", "", "He said."], ["gj04", "0", "*", "Go he said."])
    write(tmp_path / "dev.tsv", ["bc01", "1", "", "We went."])
    assert load("cola", tmp_path, kind="classification").kind == load("cola", tmp_path).kind
    problem = refused("cola", tmp_path, kind="regression")
    assert (problem.where, problem.expected) == ("--kind regression", "classification")
    path = write_csv(tmp_path / "numbers.csv", 40)
    assert refused(None, path, kind="regresion").remedy == "did you mean 'regression'?"


def test_cola_is_read_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["gj04", "1", "", 'He said "go.'], ["gj04", "0", "*", "Go he said."])
    write(tmp_path / "dev.tsv", ["bc01", "1", "", "We went."])
    task = load("cola", tmp_path)
    assert samples(task.train) == [('He said "go.',), ("Go he said.",)]
    assert classes(task) == ["acceptable", "unacceptable"]
    assert samples(task.dev) == [("We went.",)]
    assert (task.name, task.metric, task.has_pairs) == ("cola", "matthews", False)


@pytest.mark.parametrize("name", ["sst2", "SST-2", "sst_2", "SST2"])
def test_sst2_is_read_under_each_of_its_names(name: str, tmp_path: Path) -> None:
    header = ["sentence", "label"]
    write(tmp_path / "train.tsv", header, ["hide new secretions ", "0"], ["a charming film", "1"])
    write(tmp_path / "dev.tsv", header, ["it 's fine", "1"])
    task = load(name, tmp_path)
    assert samples(task.train) == [("hide new secretions ",), ("a charming film",)]
    assert classes(task) == ["negative", "positive"]
    assert isinstance(task.kind, Classification)
    assert task.kind.raw_names == ("0", "1")
    assert task.metric == "accuracy"


@pytest.mark.parametrize("names", [("train.tsv", "dev.tsv"), ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt")])
def test_mrpc_is_read_with_its_odd_header_and_mark(names: tuple[str, str], tmp_path: Path) -> None:
    header = ["\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    write(tmp_path / names[0], header, ["1", "702876", "702977", '"Yes," he said.', "He agreed."], ["0", "1", "2", "A", "B"])
    write(tmp_path / names[1], header, ["0", "3", "4", "C", '"D'])
    task = load("mrpc", tmp_path)
    assert samples(task.train) == [('"Yes," he said.', "He agreed."), ("A", "B")]
    assert classes(task) == ["equivalent", "not_equivalent"]
    assert samples(task.dev) == [("C", '"D')]
    assert task.metric == "f1"
    assert task.has_pairs


def test_qqp_is_read_and_its_few_broken_rows_are_left_out_and_told(tmp_path: Path) -> None:
    header = ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
    rows = [[str(row), "1", "2", f"Why {row}?", f"How {row}?", str(row % 2)] for row in range(1000)]
    train = write(tmp_path / "train.tsv", header, *rows, ["1000", "1", "2", "Broken?"])
    write(tmp_path / "dev.tsv", header, ["0", "1", "2", "Who?", "When?", "1"])
    task = load("qqp", tmp_path)
    assert len(task.train) == 1000
    assert samples(task.train)[1] == ("Why 1?", "How 1?")
    assert classes(task)[:2] == ["not_duplicate", "duplicate"]
    assert task.notes == (f"{train}: left out 1 broken rows",)


@pytest.mark.parametrize(("name", "text"), [("mnli", "matched"), ("mnli-mm", "mismatched"), ("MNLI_mm", "mismatched")])
def test_mnli_takes_the_matched_or_the_mismatched_dev_split(name: str, text: str, tmp_path: Path) -> None:
    names = ["entailment", "neutral", "contradiction"]
    write(tmp_path / "train.tsv", MNLI_TRAIN, *([*PARSED, f"a {label}", "b", "neutral", label] for label in names))
    for split in ("matched", "mismatched"):
        row = [*PARSED, split, "b", *["entailment"] * 5, "contradiction"]
        write(tmp_path / f"dev_{split}.tsv", MNLI_DEV, row)
    task = load(name, tmp_path)
    assert samples(task.train)[0] == ("a entailment", "b")
    assert classes(task) == names
    assert samples(task.dev) == [(text, "b")]
    assert classes(task, DEV) == ["contradiction"]
    assert (len(task.kind.class_names), task.metric) == (3, "accuracy")


@pytest.mark.parametrize(
    ("name", "first", "second", "labels", "expected"),
    [
        ("qnli", "question", "sentence", ("not_entailment", "entailment"), ["not_entailment", "entailment"]),
        ("rte", "sentence1", "sentence2", ("entailment", "not_entailment"), ["entailment", "not_entailment"]),
        ("wnli", "sentence1", "sentence2", ("1", "0"), ["entailment", "not_entailment"]),
    ],
)
def test_entailment_tasks_are_read_with_their_columns(
    name: str, first: str, second: str, labels: tuple[str, str], expected: list[str], tmp_path: Path
) -> None:
    header = ["index", first, second, "label"]
    write(tmp_path / "train.tsv", header, ["0", "One?", "Two.", labels[0]], ["1", '"Three', "Four", labels[1]])
    write(tmp_path / "dev.tsv", header, ["0", "Five", "Six", labels[1]])
    task = load(name, tmp_path)
    assert samples(task.train) == [("One?", "Two."), ('"Three', "Four")]
    assert classes(task) == expected
    assert classes(task, DEV) == expected[1:]
    assert task.metric == "accuracy"


@pytest.mark.parametrize(
    ("train", "dev"), [("MINDsmall_train", "MINDsmall_dev"), ("MINDlarge_train", "MINDlarge_dev"), ("train", "dev")]
)
def test_mind_is_read_from_its_folders_without_a_header(train: str, dev: str, tmp_path: Path) -> None:
    def row(number: int, topic: str, title: str) -> list[str]:
        return [f"N{number}", topic, "sub", title, "An abstract.", "https://x", '[{"Label": "x"}]', "[]"]

    write(tmp_path / train / "news.tsv", row(1, "sports", 'The "Game"'), row(2, "tv", "A show"))
    write(tmp_path / dev / "news.tsv", row(3, "autos", "A car"))
    task = load("mind", tmp_path)
    assert samples(task.train) == [('The "Game"',), ("A show",)]
    assert classes(task) == ["sports", "tv"]
    assert classes(task, DEV) == ["autos"]
    assert (len(task.kind.class_names), task.metric) == (18, "macro-f1")


def test_mind_text_may_be_taken_from_files_that_are_given_one_by_one(tmp_path: Path) -> None:
    row = ["N1", "sports", "sub", "A game", "", "", "[]", "[]"]
    write(tmp_path / "train" / "news.tsv", row, ["N2", "tv", *row[2:]])
    other = write(tmp_path / "other.tsv", row)
    task = load("mind", tmp_path, test=str(other), eval=str(other))
    assert set(task.splits) == {TRAIN, DEV, TEST}
    assert samples(task.splits[TEST]) == samples(task.dev) == [("A game",)]


def test_preset_without_a_dev_file_holds_one_out(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["sentence", "label"], *([f"text {row}", str(row % 2)] for row in range(40)))
    task = load("sst2", tmp_path)
    assert (len(task.train), len(task.dev)) == (36, 4)
    assert "held out of train" in task.notes[0]


def test_preset_takes_another_metric_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["sentence", "label"], ["a", "0"], ["b", "1"])
    write(tmp_path / "dev.tsv", ["sentence", "label"], ["a", "0"])
    assert load("sst2", tmp_path, metric="f1").metric == "f1"


def test_preset_folder_without_the_training_file_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "readme.md").touch()
    problem = refused("mrpc", tmp_path)
    assert problem.where == f"--data {tmp_path}"
    assert str(tmp_path / "train.tsv") in problem.expected
    assert str(tmp_path / "msr_paraphrase_train.txt") in problem.expected
    assert problem.found == "readme.md"


def test_preset_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refused("rte", tmp_path / "none").what == "there is no such folder"


def test_file_with_other_columns_than_the_preset_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ["sentense", "label"], ["a", "0"])
    problem = refused("sst2", tmp_path)
    assert problem.where == str(tmp_path / "train.tsv")
    assert problem.what == "there is no column 'sentence'"


def test_unknown_label_is_refused_with_file_and_line(tmp_path: Path) -> None:
    write(
        tmp_path / "train.tsv",
        ["index", "sentence1", "sentence2", "label"],
        ["0", "a", "b", "entailment"],
        ["1", "a", "b", "entailed"],
    )
    problem = refused("rte", tmp_path)
    assert problem.where == f"{tmp_path / 'train.tsv'}:3"
    assert problem.what == "unknown label 'entailed' in column 'label'"
    assert problem.expected == "one of entailment, not_entailment"
    assert problem.remedy == "did you mean 'entailment'?"


@pytest.mark.parametrize(("name", "nearest"), [("sst", "sst2"), ("colla", "cola"), ("mmli", "mnli"), ("minds", "mind")])
def test_unknown_task_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    problem = refused(name, None)
    assert problem.where == f"--task {name}"
    assert problem.what == "there is no such task"
    assert problem.remedy == f"did you mean '{nearest}'?"


# The Hub, which cannot be reached here.


def test_task_from_the_hub_without_a_connection_is_refused_with_the_way_out() -> None:
    problem = refused("sst2", None)
    assert problem.where == "--task sst2"
    assert "nyu-mll/glue" in problem.what
    assert "offline" in problem.what
    assert "--data DIR" in problem.remedy


def test_hub_dataset_without_a_connection_is_refused_with_the_way_out() -> None:
    problem = refused(None, "owner/no-such-dataset")
    assert problem.where == "--data owner/no-such-dataset"
    assert "--data DIR" in problem.remedy


def test_task_that_is_not_on_the_hub_asks_for_its_files() -> None:
    problem = refused("mind", None)
    assert "not on the Hub" in problem.what
    assert "--data DIR" in problem.expected


# Data of the user's own.


def test_folder_with_train_dev_and_test_is_read(tiny_data: Path) -> None:
    task = load(None, tiny_data)
    assert {name: len(split) for name, split in task.splits.items()} == {TRAIN: 160, DEV: 60, TEST: 40}
    assert task.kind == Classification.of_names(("negative", "positive"))
    assert task.metric == "accuracy"
    assert without_overlaps(task) == []


@pytest.mark.parametrize("stem", ["dev", "validation", "valid", "val", "eval"])
def test_dev_file_is_found_under_its_usual_names(stem: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", 6)
    write_csv(tmp_path / f"{stem}.csv", 4)
    assert len(load(None, tmp_path).dev) == 4


def test_dev_split_is_held_out_where_there_is_none(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", 300, classes=3)
    write_csv(tmp_path / "test.csv", 9, classes=3, first=1000)
    task = load(None, tmp_path)
    train, dev = set(task.train.texts), set(task.dev.texts)
    assert not train & dev
    assert train | dev == {f"text {row}" for row in range(300)}
    assert Counter(classes(task, DEV)) == {"class 0": 10, "class 1": 10, "class 2": 10}
    assert all(
        int(text.split()[1]) % 3 == int(label[-1]) for text, label in zip(task.dev.texts, classes(task, DEV), strict=True)
    )
    assert len(task.splits[TEST]) == 9
    assert any("30 rows held out" in note for note in task.notes)


def test_held_out_rows_are_the_same_ones_whatever_was_drawn_before(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "train.csv", 100)
    first = load(None, path)
    np.random.seed(99)
    np.random.rand(7)
    again = load(None, path)
    assert list(first.dev.texts) == list(again.dev.texts)
    assert list(first.train.texts) == list(again.train.texts)


@settings(deadline=None, database=None, max_examples=60)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_hold_out_parts_the_rows_by_class_in_proportion(sizes: list[int]) -> None:
    kind = Classification.of_names([str(place) for place in range(len(sizes))])
    labels = np.random.default_rng(len(sizes)).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if all(round(0.1 * size) == 0 for size in sizes):
        with pytest.raises(RequestError, match="too few to hold a dev split out"):
            hold_out(kind, labels)
        return
    train, dev = hold_out(kind, labels)
    assert sorted([*train, *dev]) == list(range(len(labels)))
    assert list(train) == sorted(train)
    assert list(dev) == sorted(dev)
    assert [int((labels[dev] == label).sum()) for label in range(len(sizes))] == [round(0.1 * size) for size in sizes]


def test_too_few_rows_to_hold_out_ask_for_a_dev_file(tmp_path: Path) -> None:
    problem = refused(None, write_csv(tmp_path / "few.csv", 4))
    assert "too few" in problem.what
    assert problem.remedy == "--eval dev.csv"


def test_single_files_are_taken_with_their_flags(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "mine" / "reviews.csv", 8)
    dev, test = write_csv(tmp_path / "d.csv", 3), write_csv(tmp_path / "t.csv", 2)
    task = load(None, train, eval=str(dev), test=str(test))
    assert {name: len(split) for name, split in task.splits.items()} == {TRAIN: 8, DEV: 3, TEST: 2}
    assert task.name == "reviews"
    assert task.train.source == str(train)


def test_columns_are_guessed_by_their_usual_names_or_taken_from_flags(tmp_path: Path) -> None:
    rows = [
        {"id": row, "Utterance": f"u{row}", "body": f"b{row}", "Intent": row % 2, "kind": f"k{row % 3}"} for row in range(40)
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    guessed = load(None, path)
    assert guessed.train.texts[0].startswith("u")
    assert guessed.kind.class_names == ("0", "1")
    asked = load(None, path, text_column="body", text_pair_column="Utterance", label_column="kind")
    assert asked.kind.class_names == ("k0", "k1", "k2")
    assert all(text[1:] == pair[1:] for text, pair in samples(asked.train))
    assert asked.has_pairs


def test_sentence1_and_sentence2_are_a_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "d.tsv", ["sentence1", "sentence2", "label"], *(["a", "b", str(row % 2)] for row in range(20)))
    assert load(None, path).has_pairs


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "d.tsv", ["text", "label"], *([f"t{row}", str(row % 12)] for row in range(240)))
    task = load(None, path)
    assert task.kind.class_names == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("flag", "name", "nearest"),
    [
        ("text_column", "txt", "--text-column text"),
        ("label_column", "lable", "--label-column label"),
        ("text_pair_column", "texts", "--text-pair-column text"),
    ],
)
def test_wrong_column_is_refused_with_the_nearest(flag: str, name: str, nearest: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", 20)
    problem = refused(None, path, **{flag: name})
    assert problem == Problem(str(path), f"there is no column {name!r}", "one of text, label", remedy=nearest)


@pytest.mark.parametrize(("header", "missing"), [(["a", "label"], "text"), (["text", "b"], "label")])
def test_columns_that_cannot_be_guessed_ask_for_the_flag(header: list[str], missing: str, tmp_path: Path) -> None:
    path = write(tmp_path / "d.tsv", header, ["x", "y"])
    problem = refused(None, path)
    assert problem.what == f"no column could be taken as the {missing}"
    assert f"--{missing}-column NAME" in problem.expected
    assert problem.found == ", ".join(header)


def test_folder_called_like_a_known_task_hints_at_it(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "train.tsv", ["gj04", "1", "", "A sentence."], ["gj04", "1", "", "Another."])
    assert refused(None, tmp_path / "CoLA").remedy == "--task cola"


def test_null_is_refused_in_a_column_that_is_used_and_in_no_other(tmp_path: Path) -> None:
    rows = ['{"text": "a", "label": "x", "note": null}', '{"text": "b", "label": "y", "note": null}'] * 20
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    assert len(load(None, path).kind.class_names) == 2
    path.write_text("\n".join([*rows, '{"text": null, "label": "y", "note": 1}']), encoding="utf-8")
    problem = refused(None, path)
    assert problem.where == f"{path}:41"
    assert problem.what == "1 row without a text (line 41)"
    assert "column 'text'" in problem.expected


def test_label_that_only_the_dev_file_has_is_refused_with_file_and_line(tmp_path: Path) -> None:
    train, dev = write_csv(tmp_path / "t.csv", 10), write_csv(tmp_path / "d.csv", 3, classes=3)
    problem = refused(None, train, eval=str(dev))
    assert problem.where == f"{dev}:4"
    assert problem.what == "unknown label 'class 2' in column 'label'"


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "d.csv", 30, classes=1)
    problem = refused(None, path)
    assert problem.where == str(path)
    assert problem.what == "all 30 rows have the same label"
    assert "--label-column" in problem.remedy


def test_train_rows_takes_that_many_always_the_same(tmp_path: Path) -> None:
    train, dev = write_csv(tmp_path / "t.csv", 200), write_csv(tmp_path / "d.csv", 10)
    task = load(None, train, eval=str(dev), train_rows=50)
    assert len(task.train) == 50
    assert set(task.train.texts) < {f"text {row}" for row in range(200)}
    assert len(task.dev) == 10
    assert "50 of 200 rows" in task.notes[0]
    assert list(load(None, train, eval=str(dev), train_rows=50).train.texts) == list(task.train.texts)


def test_train_rows_beyond_the_file_take_all(tmp_path: Path) -> None:
    train, dev = write_csv(tmp_path / "t.csv", 20), write_csv(tmp_path / "d.csv", 10, first=100)
    task = load(None, train, eval=str(dev), train_rows=500)
    assert len(task.train) == 20
    assert task.notes == ()


def test_train_rows_come_before_the_dev_split_is_held_out(tmp_path: Path) -> None:
    task = load(None, write_csv(tmp_path / "t.csv", 300), train_rows=100)
    assert len(task.train) + len(task.dev) == 100
    assert not set(task.train.texts) & set(task.dev.texts)


@pytest.mark.parametrize("rows", [1, 0, -5])
def test_too_few_train_rows_are_refused_at_the_flag(rows: int, tmp_path: Path) -> None:
    assert refused(None, write_csv(tmp_path / "t.csv", 30), train_rows=rows).where == f"--train-rows {rows}"


@pytest.mark.parametrize("name", ["none.csv", "none", "no/such/folder"])
def test_data_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    assert refused(None, tmp_path / name).what == "there is no such file or folder"


def test_eval_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    problem = refused(None, write_csv(tmp_path / "t.csv", 30), eval=str(tmp_path / "none.csv"))
    assert problem.where == str(tmp_path / "none.csv")


def test_folder_without_a_training_file_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    write_csv(tmp_path / "test.csv", 3)
    problem = refused(None, tmp_path)
    assert "no training file" in problem.what
    assert problem.found == "test.csv"


def test_selected_rows_keep_texts_pairs_and_labels_together() -> None:
    split = Split(["a", "b", "c"], ["x", "y", "z"], np.array([0, 1, 2]), "here", "f")
    some = split.select([2, 0])
    assert samples(some) == [("c", "z"), ("a", "x")]
    assert some.targets is not None
    assert some.targets.tolist() == [2, 0]
    assert len(some) == 2


# The real sets, where they are at hand.


@needs_shared
@pytest.mark.parametrize(
    ("task", "folder", "rows", "count"),
    [
        ("sst2", "glue/SST-2", {TRAIN: 67_349, DEV: 872}, 2),
        ("rte", "glue/RTE", {TRAIN: 2_490, DEV: 277}, 2),
        ("cola", "glue/CoLA", {TRAIN: 8_551, DEV: 1_043}, 2),
        ("mind", "mind", {TRAIN: 1_600, DEV: 400}, 18),
    ],
)
def test_real_task_has_the_rows_that_were_distributed(task: str, folder: str, rows: dict[str, int], count: int) -> None:
    loaded = load(task, SHARED / "data" / folder)
    assert {name: len(split) for name, split in loaded.splits.items()} == rows
    assert len(loaded.kind.class_names) == count
    assert without_overlaps(loaded) == []


@needs_shared
@pytest.mark.parametrize(("folder", "train", "test", "count"), [("trec", 5_452, 500, 6), ("banking77", 10_003, 3_080, 77)])
def test_real_data_without_a_dev_split_is_read_as_it_stands(folder: str, train: int, test: int, count: int) -> None:
    task = load(None, SHARED / "data" / folder)
    assert len(task.train) + len(task.dev) == train
    assert len(task.dev) == pytest.approx(0.1 * train, rel=0.05)
    assert len(task.splits[TEST]) == test
    assert len(task.kind.class_names) == count
    assert set(classes(task, DEV)) == set(task.kind.class_names)
