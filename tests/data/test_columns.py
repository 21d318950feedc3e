"""Which columns are taken as texts and labels, and which cells are values."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from kdcli.data import task_loading
from kdcli.data.hub_datasets import columns_of
from kdcli.data.splits import DEV, TEST, TRAIN
from kdcli.data.table import Columns
from kdcli.data.task import Task
from kdcli.data.task_loading import DataRequest, load_scored, load_task
from kdcli.errors import Problem, RequestError
from kdcli.tasks.classification import Classification


def table(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def load(path: Path | str, **more: str | int) -> Task:
    return load_task(DataRequest(data=str(path), **more))  # type: ignore[arg-type]


def refused(path: Path | str, **more: str | int) -> Problem:
    with pytest.raises(RequestError) as caught:
        load(path, **more)
    return caught.value.problems[0]


def labelled(path: Path, labels: list[str]) -> Path:
    return table(path, "text,label", *(f"text {row},{label}" for row, label in enumerate(labels)))


# Pairs, and what is left out.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("question", "sentence"),
        ("text", "text_pair"),
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("title", "content"),
        ("title", "abstract"),
        ("title", "description"),
        ("question1", "question2"),
        ("query", "passage"),
        ("sentence_A", "sentence_B"),
        ("text_a", "text_b"),
        ("text1", "text2"),
        ("s1", "s2"),
        ("question", "context"),
        ("claim", "evidence"),
    ],
)
def test_second_text_with_a_usual_name_is_taken_and_said(first: str, second: str, tmp_path: Path) -> None:
    rows = [f"{row},second {row},first {row},c{row % 2}" for row in range(20)]
    path = table(tmp_path / "d.csv", f"id,{second},{first},label", *rows)
    task = load(path)
    assert task.columns is not None
    assert (task.columns.text, task.columns.pair, task.columns.left_out) == (first, second, ("id",))
    assert task.has_pairs
    assert any(f"second text {second!r} (guessed" in note and "left out: 'id'" in note for note in task.notes)
    assert not load(path, text_pair_column="none").has_pairs


@pytest.mark.parametrize("header", ["id1,id2,text,label", "label1,label2,text,label", "text,score1,score2,label"])
def test_numbered_columns_that_are_no_texts_are_no_pair(header: str, tmp_path: Path) -> None:
    rows = (",".join([str(row)] * 3) + f",c{row % 2}" for row in range(20))
    task = load(table(tmp_path / "d.csv", header, *rows))
    assert task.columns is not None
    assert task.columns.text == "text"
    assert not task.has_pairs


def test_a_text_column_that_was_named_alone_stays_alone_where_it_often_does(tmp_path: Path) -> None:
    path = table(tmp_path / "d.csv", "title,content,label", *(f"a{row},b,c{row % 2}" for row in range(20)))
    task = load(path, text_column="title")
    assert not task.has_pairs
    assert any("left out: 'content'" in note for note in task.notes)


def test_further_files_have_the_columns_of_the_training_file(tmp_path: Path) -> None:
    train = table(tmp_path / "t.csv", "question,sentence,label", *(f"q{row},s,c{row % 2}" for row in range(20)))
    other = table(tmp_path / "d.csv", "question,passage,label", "q,s,c0")
    problem = refused(train, eval=str(other))
    assert problem.where == str(other)
    assert problem.what == f"there is no column 'sentence', which is the second text in {train}"
    same = table(tmp_path / "s.csv", "Sentence,Question,Label", "s,q,c0")
    assert load(train, eval=str(same)).dev.pairs == ["s"]
    assert refused(train, eval=str(same), unlabelled=str(other)).where == str(other)


def test_one_column_is_not_two_things(tmp_path: Path) -> None:
    path = labelled(tmp_path / "d.csv", ["a", "b"] * 20)
    assert "cannot be the text and the label" in refused(path, text_column="label", label_column="label").what


# Missing values.


@pytest.mark.parametrize("word", ["", "  ", "nan", "NaN", "NAN", "<NA>", "NaT", "None"])
def test_a_missing_label_is_no_class(word: str, tmp_path: Path) -> None:
    labels = ["a", "b"] * 20
    labels[0] = labels[7] = labels[39] = word
    path = labelled(tmp_path / "d.csv", labels)
    problem = refused(path)
    assert problem.where == f"{path}:2"
    assert problem.what == "3 rows without a label (lines 2, 9, 41)"
    assert "--unlabelled FILE" in problem.remedy
    whole = labelled(tmp_path / "whole.csv", ["a", "b"] * 20)
    for flag in ("eval", "test"):
        assert "3 rows without a label" in refused(whole, **{flag: str(path)}).what
    with pytest.raises(RequestError, match="3 rows without a label"):
        load_scored(DataRequest(data=str(path)))
    assert load(whole, unlabelled=str(path)).unlabelled == 40


@pytest.mark.parametrize("word", ["", "nan", "None", "<NA>"])
def test_a_missing_text_is_no_text(word: str, tmp_path: Path) -> None:
    rows = [f"{word if row in (3, 4) else f't{row}'},u{row},c{row % 2}" for row in range(20)]
    path = table(tmp_path / "d.csv", "text,text_pair,label", *rows)
    assert refused(path).what == "2 rows without a text (lines 5, 6)"
    turned = refused(path, text_column="text_pair", text_pair_column="text")
    assert turned.what == "2 rows without a second text (lines 5, 6)"
    whole = labelled(tmp_path / "whole.csv", ["a", "b"] * 20)
    assert "2 rows without a text" in refused(whole, unlabelled=str(path)).what


@pytest.mark.parametrize("word", ["null", "NA", "N/A", "n/a", "none", "-", "?"])
def test_a_word_that_may_be_a_class_is_kept_and_said(word: str, tmp_path: Path) -> None:
    task = load(labelled(tmp_path / "d.csv", ["a", word] * 20))
    assert set(task.kind.class_names) == {"a", word}
    assert any(f"{word!r} is taken as a class (20 rows)" in note for note in task.notes)


@pytest.mark.parametrize("cell", ["[0, 1]", '["a"]', '{"a": 1}'])
def test_a_list_is_no_class(cell: str, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"t{row}", "label": f"c{row % 2}"}) for row in range(20)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join([*rows, f'{{"text": "x", "label": {cell}}}']), encoding="utf-8")
    problem = refused(path)
    assert problem.where == f"{path}:21"
    assert "several labels per row are not a kind of task yet" in problem.what


# Labels that are one class, or none.


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("1", "01"), ("spam", "Spam"), ("spam", "spam "), ("caf\u00e9", "cafe\u0301"), ("true", "True")],
)
def test_a_class_is_written_in_one_way(one: str, other: str, tmp_path: Path) -> None:
    problem = refused(labelled(tmp_path / "d.csv", [one, "x"] * 10 + [other, "x"] * 10))
    assert "one class is written in 2 ways" in problem.what
    assert "10 rows of" in problem.found
    assert "line" in problem.found
    dev = labelled(tmp_path / "dev.csv", [other, "x"])
    task = load(labelled(tmp_path / "t.csv", [one, "x"] * 10), eval=str(dev))
    assert task.dev.targets is not None
    assert [task.kind.class_names[label] for label in task.dev.targets] == [one, "x"]
    assert any(f"{other!r} is taken as class {one!r} (1 row)" in note for note in task.notes)


def test_measured_numbers_are_no_classes(tmp_path: Path) -> None:
    numbers = [f"{row / 40:.{2 + row % 2}f}" for row in range(200)] + ["0", "0.00", "0.000"]
    task = load(labelled(tmp_path / "d.csv", numbers))
    assert (task.kind.name, task.metric) == ("regression", "pearson")
    assert any("is learned as numbers (regression)" in note for note in task.notes)
    assert "it looks like regression" in refused(labelled(tmp_path / "d.csv", numbers), kind="classification").what
    few = labelled(tmp_path / "t.csv", ["1.0", "2.5", "3.0"] * 10)
    assert load(few).kind.class_names == ("1.0", "2.5", "3.0")
    problem = refused(few, eval=str(labelled(tmp_path / "dev.csv", ["2.615", "1.0"])))
    assert "--kind regression" in problem.what
    assert problem.remedy == ""


def test_a_column_of_ids_is_no_column_of_classes(tmp_path: Path) -> None:
    assert "a label of its own" in refused(labelled(tmp_path / "d.csv", [f"N{row}" for row in range(50)])).what
    notes = load(labelled(tmp_path / "e.csv", ["a", "b"] * 20 + ["c"])).notes
    assert any("1 class ('c') with one row each" in note for note in notes)


# Splits.


def test_a_test_file_without_labels_does_not_stop_a_training(tmp_path: Path) -> None:
    labelled(tmp_path / "train.csv", ["a", "b"] * 20)
    table(tmp_path / "test.csv", "id,text", "0,x", "1,y")
    task = load(tmp_path)
    assert set(task.splits) == {TRAIN, DEV}
    assert any("test is not scored" in note for note in task.notes)
    assert "has no labels" in str(task.unscored[TEST])
    table(tmp_path / "dev.csv", "id,text", "0,x", "1,y")
    assert "has no labels" in refused(tmp_path).what


def test_a_scored_file_needs_no_two_classes_and_no_many_rows(tmp_path: Path) -> None:
    path = labelled(tmp_path / "d.csv", ["b"])
    task = load_scored(DataRequest(data=str(path)), Classification.of_outputs(("a", "b")))
    assert task.kind.class_names == ("a", "b")
    assert (labels := task.splits[TEST].targets) is not None
    assert labels.tolist() == [1]
    numbers = labelled(tmp_path / "n.csv", ["1.0"])
    found = load_scored(DataRequest(data=str(numbers)), Classification.of_outputs(("LABEL_0", "LABEL_1")))
    assert found.kind.class_names == ("0", "1")
    assert any("'1.0' is taken as class '1'" in note for note in found.notes)


def test_samples_that_stand_in_two_splits_are_said(tmp_path: Path) -> None:
    path = labelled(tmp_path / "t.csv", ["a", "b"] * 10)
    assert any("all 20 rows of dev are in train" in note for note in load(path, eval=str(path)).notes)


# The Hub's data, made here.


def of_the_hub(monkeypatch: pytest.MonkeyPatch, **splits: datasets.Dataset) -> None:
    def columns(name: str, configuration: str | None, split: str, flag: str) -> Columns:
        return columns_of(splits[split], f"{name}:{split}")

    monkeypatch.setattr(task_loading, "hub_columns", columns)


def dataset(labels: list[int], texts: list[str | None] | None = None, label: str = "label") -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), label: datasets.ClassLabel(names=["no", "yes"])})
    rows = texts or [f"text {row}" for row in range(len(labels))]
    return datasets.Dataset.from_dict({"text": rows, label: labels}, features=features)


def test_hidden_labels_and_null_texts_of_the_hub_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_hub(monkeypatch, train=dataset([0, 1] * 20 + [-1]))
    problem = refused("owner/data")
    assert problem.what == "1 row without a label (row 41)"
    of_the_hub(monkeypatch, train=dataset([0, 1] * 2, ["a", None, "b", "c"]))
    assert refused("owner/data").what == "1 row without a text (row 2)"
    of_the_hub(monkeypatch, train=dataset([0, 1] * 20), test=dataset([-1] * 5))
    task = load("owner/data")
    assert task.kind.class_names == ("no", "yes")
    assert set(task.splits) == {TRAIN, DEV}
    assert "none of its 5 rows has one" in str(task.unscored[TEST])


def test_columns_of_the_hub_are_never_guessed_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    of_the_hub(monkeypatch, train=dataset([0, 1] * 20, label="verdict"))
    assert refused("owner/data").what == "no column could be taken as the label"
    assert load("owner/data", label_column="verdict").kind.class_names == ("no", "yes")


def test_lists_and_numbers_of_the_hub_are_what_they_are() -> None:
    data = datasets.Dataset.from_dict({"tags": [[0, 1], [1]], "score": [0.5, float("nan")], "flag": [True, None]})
    columns = columns_of(data, "here:train")
    assert columns.structured == {"tags": [0, 1]}
    assert columns.missing == {"score": [1], "flag": [1]}
    assert columns.cells["score"] == ["0.5", ""]


def test_rows_that_are_selected_keep_their_ids(tmp_path: Path) -> None:
    path = table(tmp_path / "d.csv", "id,text,label", *(f"n{row},t{row},c{row % 2}" for row in range(40)))
    dev = load(path).dev
    assert [f"n{text[1:]}" for text in dev.texts] == list(dev.ids["id"])
