"""JSON: rows come out of every shape that holds a table, and anything else is named as what it is."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.data.readers import Columns, read
from kdcli.errors import Problem, RequestError

ROWS: list[dict[str, Any]] = [{"text": "a scene", "label": "fine"}, {"text": "a plot", "label": "dull"}]
pandas: Any = importlib.import_module("pandas")  # it has no types
FRAME = pandas.DataFrame(ROWS)
CELLS = {"text": ["a scene", "a plot"], "label": ["fine", "dull"]}


def table(path: Path, content: str) -> Columns:
    path.write_bytes(content.encode())
    columns = read(path)
    assert all(note.startswith(f"{path.name}: ") for note in columns.notes)
    columns.notes = [note.removeprefix(f"{path.name}: ") for note in columns.notes]
    return columns


def refused(path: Path, content: str) -> Problem:
    with pytest.raises(RequestError) as caught:
        table(path, content)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
@pytest.mark.parametrize(
    ("content", "lines", "note"),
    [
        ("".join(json.dumps(row) + "\n" for row in ROWS), [1, 2], ""),
        ("\r\n\r\n".join(json.dumps(row) for row in ROWS), [1, 3], "1 blank line passed over (line 2)"),
        (json.dumps(ROWS), [1, 2], ""),
        (json.dumps(ROWS, indent=1), [2, 6], ""),
        ("\n".join(json.dumps(row, indent=1) for row in ROWS), [1, 5], ""),
        ("".join(json.dumps(row) for row in ROWS), [1, 2], ""),
        (json.dumps({"data": ROWS}), [1, 2], "the rows are the list 'data'"),
        (json.dumps({"version": 2, "rows": ROWS}, indent=1), [4, 8], "left out beside it: version"),
        (json.dumps({"text": CELLS["text"], "label": CELLS["label"]}), [1, 2], "a list for each"),
        (FRAME.to_json(), [1, 2], "an object for each"),
        (FRAME.to_json(orient="index"), [1, 2], "rows by their numbers"),
        (FRAME.to_json(orient="split"), [1, 2], "as pandas splits a table"),
        (FRAME.to_json(orient="records"), [1, 2], ""),
        (FRAME.to_json(orient="records", indent=2), [2, 6], ""),
    ],
)
def test_every_shape_gives_the_same_rows(name: str, content: str, lines: list[int], note: str, tmp_path: Path) -> None:
    columns = table(tmp_path / name, content)
    assert columns.cells == CELLS
    assert columns.lines == lines
    assert [note in said for said in columns.notes] == [True] * bool(note)


def test_table_with_a_schema_is_read(tmp_path: Path) -> None:
    assert table(tmp_path / "d.json", FRAME.to_json(orient="table")).cells == {"index": ["0", "1"], **CELLS}


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('{"text": "a"},\n{"text": "b"}\n', 1, "a comma stands behind the object"),
        ('{"text": "a"}\n{"text": "b"},\n', 2, "a comma stands behind the object"),
        ('{"text": "a"}\n{"text": \n', 2, "is not valid JSON"),
        ('[{"text": "a"},\n]', 2, "is not valid JSON"),
        ('[{"text": "a"}\n {"text": "b"}]', 2, "is not valid JSON"),
        ('[{"text": "a"}\n', 2, "is not valid JSON"),
        ('[{"text": "a"}]\n[]', 2, "something follows the list"),
        ('[{"text": "a"},\n 3]', 2, "entry 2 of the list is not a JSON object"),
        ('[["text"], ["a"]]', 1, "entry 1 of the list is not a JSON object"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": 1, "text": "c"}\n', 2, "the key 'text' stands twice in one object"),
        ('{"text": {"x": "a"}, "label": {"x": 1}}', 1, "which are rows and which are columns cannot be told"),
        ('{"text": ["a", "b"], "label": [1]}', 1, "of several lengths"),
        ('{"columns": ["text", "text"], "data": [["a", "b"]]}', 1, "names a column twice"),
        ('{"a":' * 50000, 1, "is nested too deeply"),
        ("[" * 50000, 1, "is nested too deeply"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(content: str, line: int, what: str, tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.json", content)
    assert problem.where == f"{tmp_path / 'd.json'}:{line}"
    assert what in problem.what


def test_several_lists_are_written_apart_as_the_message_says(tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.json", json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert problem.found == "train, test"
    command = problem.remedy.replace("python", sys.executable, 1)
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    assert read(tmp_path / "d-train.json").cells == CELLS
    assert len(read(tmp_path / "d-test.json")) == 1


def test_names_that_only_later_rows_have_are_columns(tmp_path: Path) -> None:
    columns = table(tmp_path / "d.jsonl", '{"text": "a"}\n{"text": "b", "label": "fine"}\n{"label": "dull"}\n')
    assert columns.cells == {"text": ["a", "b", ""], "label": ["", "fine", "dull"]}
    assert columns.missing == {"label": [0], "text": [2]}


def test_a_name_of_its_own_in_each_row_is_refused_before_the_memory_is_full(tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.jsonl", "".join(f'{{"name {row}": 1}}\n' for row in range(2000)))
    assert problem.what == "the file has more than 1000 columns"


def test_values_that_are_none_and_values_that_are_several_are_noted(tmp_path: Path) -> None:
    values = ["NaN", "null", '"  "', "Infinity", "-1e999", "[1]", '{"a": 1}', "true", "1.50", str(10**40)]
    columns = table(tmp_path / "d.jsonl", "".join(f'{{"text": "a", "label": {value}}}\n' for value in values))
    assert columns.missing == {"label": [0, 1, 2]}
    assert columns.structured == {"label": [5, 6]}
    assert columns.cells["label"][3:5] + columns.cells["label"][7:] == ["Infinity", "-1e999", "True", "1.5", str(10**40)]


@pytest.mark.parametrize("indent", [None, 1])
def test_half_of_a_surrogate_pair_is_replaced_and_counted(indent: int | None, tmp_path: Path) -> None:
    rows = [{"te\udc00xt": "a \ud83d", "label": "\ude00"}, {"te\udc00xt": "b \U0001f642", "label": "fine"}]
    content = "\n".join(json.dumps(row, indent=indent) for row in rows)
    columns = table(tmp_path / "d.jsonl", content)
    assert columns.cells == {"te\ufffdxt": ["a \ufffd", "b \U0001f642"], "label": ["\ufffd", "fine"]}
    (note,) = columns.notes
    assert note.startswith("2 rows with half of a surrogate pair")
    assert refused(tmp_path / "d.jsonl", '{"a\\ud800": 1, "a\\ud801": 2}').where.endswith(":1")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text("ab\ud83d\ude00", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "columns", "text", "0", "1"]), inner),
    max_leaves=12,
)


@settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(JSON, min_size=1, max_size=3), indent=st.sampled_from([None, 1]), cut=st.integers(0, 5))
def test_any_json_gives_rows_or_a_refusal(
    values: list[Any], indent: int | None, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "\n".join(json.dumps(value, indent=indent) for value in values)
    try:
        columns = table(tmp_path_factory.getbasetemp() / "any.json", text[: len(text) - cut] or "x")
    except RequestError:
        return
    assert all(len(cells) == len(columns) for cells in columns.cells.values())
    for name, cells in columns.cells.items():
        "".join([name, *cells]).encode()  # raises on half of a surrogate pair
