"""Predictions made elsewhere meet the rows that they are about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdcli.data.columns import Choice
from kdcli.data.splits import TEST
from kdcli.data.task import Split, Task
from kdcli.errors import RequestError
from kdcli.jobs.prediction_files import read_predictions
from kdcli.tasks.classification import Classification

LABELS = np.array([0, 1, 1, 0, 1])
NAMES = ("neg", "pos")


def task(ids: dict[str, list[str]] | None = None, names: tuple[str, str] = NAMES) -> Task:
    split = Split([f"text {row}" for row in range(5)], None, LABELS, "data.csv", "f", ids or {})
    return Task("t", Classification(names, names), "accuracy", {TEST: split}, columns=Choice("text", None, "label"))


def read(path: Path, text: str, of: Task) -> tuple[list[int], str]:
    path.write_text(text, encoding="utf-8")
    found, notes = read_predictions(path, of, of.splits[TEST])
    return found.tolist(), notes[0]


def rows(keys: list[str], order: list[int]) -> str:
    return "".join(f"{keys[row]},{NAMES[LABELS[row]]}\n" for row in order)


TURNED = [3, 1, 4, 0, 2]


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("index", ["0", "1", "2", "3", "4"], "row numbers from 0"),
        ("id", ["1", "2", "3", "4", "5"], "row numbers from 1"),
        ("Idx", ["0.0", "1.0", "2.0", "3.0", "4.0"], "row numbers from 0"),
        ("text", [f"text {row}" for row in range(5)], "by the texts"),
    ],
)
def test_rows_are_matched_by_what_says_which_they_are(name: str, keys: list[str], said: str, tmp_path: Path) -> None:
    found, note = read(tmp_path / "p.csv", f"{name},prediction\n" + rows(keys, TURNED), task())
    assert found == LABELS.tolist()
    assert said in note


def test_rows_are_matched_by_the_ids_of_the_data(tmp_path: Path) -> None:
    keys = ["n7", "n3", "n9", "n1", "n5"]
    for name, of in (("id", task({"id": keys})), ("guid", task({"id": keys}))):
        found, note = read(tmp_path / "p.csv", f"{name},prediction\n" + rows(keys, TURNED), of)
        assert found == LABELS.tolist()
        assert "of both files" in note or "column 'id' of the data" in note
    # row numbers that mean something else than the position
    turned = ["4", "3", "2", "1", "0"]
    found, _ = read(tmp_path / "p.csv", "id,prediction\n" + rows(turned, TURNED), task({"id": turned}))
    assert found == LABELS.tolist()


def test_rows_without_an_index_are_matched_by_position_and_it_is_said(tmp_path: Path) -> None:
    found, note = read(tmp_path / "p.csv", "prediction\nneg\npos\npos\nneg\npos\n", task())
    assert found == LABELS.tolist()
    assert "by position" in note


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["0", "1", "2", "3", "3"], r"2 rows with a value that another row has \(lines 5, 6\)"),
        (["0", "1", "2", "3", "9"], r"1 row with a value that no row of the data has \(line 6\)"),
        (["a", "b", "c", "d", "e"], "5 rows with a value that no row"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(keys: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        read(tmp_path / "p.csv", "index,prediction\n" + rows(keys, list(range(5))), task())


def test_ids_that_contradict_each_other_or_repeat_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"{row},{4 - row},neg\n" for row in range(5))
    with pytest.raises(RequestError, match="which are not the same"):
        read(tmp_path / "p.csv", "index,id,prediction\n" + lines, task())
    with pytest.raises(RequestError, match="4 rows of the data repeat a value"):
        read(tmp_path / "p.csv", "id,prediction\n" + rows(["7"] * 5, TURNED), task({"id": ["7"] * 5}))


def test_several_columns_of_predictions_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="several columns that may hold"):
        read(tmp_path / "p.csv", "pred,prediction\n" + "neg,pos\n" * 5, task())
    with pytest.raises(RequestError, match="no column with predicted classes"):
        read(tmp_path / "p.csv", "neg,pos\n" + "0.1,0.9\n" * 5, task())
    found, _ = read(tmp_path / "p.csv", "label,prediction\n" + "neg,pos\n" * 5, task())
    assert found == [1] * 5


def test_predictions_are_classes_not_indices_or_probabilities(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="a number may be an index in any order"):
        read(tmp_path / "p.csv", "prediction\n" + "1\n" * 5, task())
    with pytest.raises(RequestError, match="not their probabilities"):
        read(tmp_path / "p.csv", "prediction\n" + "0.93\n" * 5, task())
    with pytest.raises(RequestError, match="1 row without a label"):
        read(tmp_path / "p.csv", "prediction\nneg\nneg\nnan\nneg\nneg\n", task())
    turned = task(names=("1", "0"))
    found, _ = read(tmp_path / "p.csv", "prediction\n1.0\n0.0\n0\n1\n0\n", turned)
    assert found == LABELS.tolist()
