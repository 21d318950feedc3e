"""CSV tables: what is in them, and that they are read back."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdcli.evaluation.comparison import compare
from kdcli.evaluation.tables import write_tables
from kdcli.tasks.classification import Classification
from tests.evaluation.test_comparison import ALL, BERT, STUDENT, answer, task


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    write_tables(tmp_path / "tables", task(), compare(task(), "dev", ALL), ALL)
    return tmp_path / "tables"


def test_there_is_a_row_per_model_class_difference_and_sample(tables: Path) -> None:
    scores = {row["model"]: row for row in read(tables / "scores.csv")}
    assert float(scores["student"]["accuracy"]) == 0.8
    assert float(scores["student"]["of best teacher"]) == pytest.approx(0.8 / 0.95)
    assert scores["majority class"]["ece"] == ""
    assert len(read(tables / "classes.csv")) == 2 * len(ALL)
    assert {row["theirs"] for row in read(tables / "differences.csv")} >= {"bert", "roberta"}
    predictions = read(tables / "predictions.csv")
    assert len(predictions) == 40
    assert sum(row["label"] == row["model student"] for row in predictions) == 32


def test_changed_samples_are_those_that_teacher_and_student_answer_differently(tables: Path) -> None:
    rows = read(tables / "changed-student-roberta.csv")
    assert len(rows) == 6
    assert {row["change"] for row in rows} == {"lost"}
    assert all(row["teacher"] != row["student"] and row["text"] for row in rows)
    assert {row["kind"] for row in read(tables / "slices-student-roberta.csv")} <= {"length", "label", "word"}


def test_texts_with_commas_quotes_and_line_ends_come_back_as_they_were(tmp_path: Path) -> None:
    odd = 'one, "two"\nthree\r'
    strange = task()
    dev = replace(strange.dev, texts=[odd, *strange.dev.texts[1:]])
    strange = replace(strange, splits={**strange.splits, "dev": dev})
    write_tables(tmp_path / "tables", strange, compare(strange, "dev", [STUDENT]), [STUDENT])
    assert read(tmp_path / "tables" / "predictions.csv")[0]["text"] == odd


def test_names_that_are_no_file_names_are_made_so(tmp_path: Path) -> None:
    answers = [answer("runs/a: best", "student", 30, teachers=("../bert",)), replace(BERT, name="../bert")]
    write_tables(tmp_path / "tables", task(), compare(task(), "dev", answers), answers)
    assert (tmp_path / "tables" / "changed-runs-a-best-bert.csv").is_file()


def test_tables_of_before_are_replaced(tables: Path) -> None:
    (tables / "old.csv").touch()
    write_tables(tables, task(), compare(task(), "dev", [STUDENT]), [STUDENT])
    assert not (tables / "old.csv").exists()


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1+1", "=HYPERLINK(1)"]


def test_no_text_is_a_formula_to_a_spreadsheet(tmp_path: Path) -> None:
    strange = task()
    dev = replace(strange.dev, texts=[*FORMULAS, *strange.dev.texts[len(FORMULAS) :]])
    strange = replace(strange, kind=Classification(("=class", "@other"), ("0", "1")), splits={**strange.splits, "dev": dev})
    answers = [replace(STUDENT, name="=student"), replace(BERT, name="-bert", path="=path")]
    write_tables(tmp_path / "tables", strange, compare(strange, "dev", answers), answers)
    for file in sorted((tmp_path / "tables").glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as opened:
            cells = [cell for row in csv.reader(opened) for cell in row]
        assert not [cell for cell in cells if cell.strip().startswith(("=", "+", "@", "\uff1d"))], file.name
        assert not [cell for cell in cells if cell.startswith("-") and not _is_number(cell)], file.name
    assert [row["text"] for row in read(tmp_path / "tables" / "predictions.csv")][: len(FORMULAS)] == [
        f"'{text}" for text in FORMULAS
    ]


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    answers = [replace(STUDENT, teachers=("bert",)), BERT]
    numbers = replace(task(), kind=Classification(("-1", "-0.5"), ("-1", "-0.5")))
    write_tables(tmp_path / "tables", numbers, compare(numbers, "dev", answers), answers)
    (difference,) = read(tmp_path / "tables" / "differences.csv")
    assert float(difference["difference"]) < 0
    assert {row["label"] for row in read(tmp_path / "tables" / "predictions.csv")} == {"-1", "-0.5"}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_models_without_a_score_have_a_row_and_no_figure(tmp_path: Path) -> None:
    logits = np.full((40, 2), np.nan, dtype=np.float32)
    answers = [*ALL, replace(STUDENT, name="spoilt", outputs=logits)]
    write_tables(tmp_path / "tables", task(), compare(task(), "dev", answers), answers)
    (row,) = [row for row in read(tmp_path / "tables" / "scores.csv") if row["model"] == "spoilt"]
    assert {name: cell for name, cell in row.items() if cell} == {"model": "spoilt", "role": "student", "not finite": "40"}
    assert "model spoilt" not in read(tmp_path / "tables" / "predictions.csv")[0]


def test_names_that_make_one_file_name_make_several_files(tmp_path: Path) -> None:
    long = "x" * 300
    answers = [replace(STUDENT, teachers=("a b", "A-b", long)), *(replace(BERT, name=name) for name in ("a b", "A-b", long))]
    write_tables(tmp_path / "tables", task(), compare(task(), "dev", answers), answers)
    assert len(list((tmp_path / "tables").glob("changed-*.csv"))) == 3
