"""Files to columns: what is read, and that every fault is refused with its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.data.readers import SUFFIXES, Columns, read
from kdcli.errors import Problem, RequestError

ROWS = [('It\'s fine, "really"', "good"), ("naïve 🙂\ttab", "bad"), ("  spaces  ", "good")]
Writer = Callable[[Path], object]


def refused(path: Path, header: tuple[str, ...] | None = None) -> Problem:
    with pytest.raises(RequestError) as caught:
        read(path, header)
    (problem,) = caught.value.problems
    return problem


def text_file(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def _json_lines(path: Path) -> None:
    text_file(path, "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))


def _json_list(path: Path) -> None:
    text_file(path, json.dumps([{"text": text, "label": label} for text, label in ROWS], indent=1))


def _csv(path: Path) -> None:
    text_file(path, "text,label\r\n" + "".join(f'"{text.replace(chr(34), chr(34) * 2)}",{label}\r\n' for text, label in ROWS))


def _parquet(path: Path) -> None:
    table = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("d.csv", _csv),
        ("d.CSV", _csv),
        ("d.jsonl", _json_lines),
        ("d.json", _json_list),
        ("d.json", _json_lines),
        ("d.parquet", _parquet),
    ],
)
def test_every_kind_of_file_gives_the_same_text(name: str, write: Writer, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path)
    columns = read(path)
    assert columns.cells == {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    assert len(columns) == 3
    assert columns.source == str(path)
    assert columns.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert columns.skipped == []


def test_csv_keeps_commas_quotes_and_line_breaks_inside_quotes(tmp_path: Path) -> None:
    columns = read(text_file(tmp_path / "d.csv", 'text,label\n"a, ""b""\nc",1\nd,0\n'))
    assert columns.cells == {"text": ['a, "b"\nc', "d"], "label": ["1", "0"]}
    assert columns.lines[-1] == 4


@pytest.mark.parametrize("suffix", [".tsv", ".txt"])
def test_tab_separated_text_keeps_its_quote_characters(suffix: str, tmp_path: Path) -> None:
    columns = read(text_file(tmp_path / f"d{suffix}", 'text\tlabel\n"open quote\t1\nsay "hi", he said\t0\n"\t0\n'))
    assert columns.cells["text"] == ['"open quote', 'say "hi", he said', '"']
    assert columns.lines == [2, 3, 4]


def test_given_header_names_the_columns_of_a_file_without_one(tmp_path: Path) -> None:
    columns = read(text_file(tmp_path / "d.tsv", "gj04\t1\t\tA sentence.\n"), ("source", "label", "star", "sentence"))
    assert columns.cells == {"source": ["gj04"], "label": ["1"], "star": [""], "sentence": ["A sentence."]}
    assert columns.lines == [1]


def test_empty_lines_are_passed_over_and_lines_still_count(tmp_path: Path) -> None:
    assert read(text_file(tmp_path / "d.csv", "text,label\n\na,1\n\nb,0\n\n")).lines == [3, 5]
    assert read(text_file(tmp_path / "d.jsonl", '\n{"text": "a"}\n\n{"text": "b"}\n')).lines == [2, 4]


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl", "d.json"])
def test_byte_order_mark_is_no_part_of_the_first_name(name: str, tmp_path: Path) -> None:
    separator = "\t" if name == "d.tsv" else ","
    content = f"text{separator}label\na{separator}1\n" if name[2:] in ("csv", "tsv") else '{"text": "a", "label": "1"}\n'
    assert read(text_file(tmp_path / name, "\ufeff" + content)).cells == {"text": ["a"], "label": ["1"]}


def test_line_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    text = "a\u2028b\u0085c"
    assert read(text_file(tmp_path / "d.tsv", f"text\tlabel\n{text}\t1\n")).cells["text"] == [text]
    record = json.dumps({"text": text}, ensure_ascii=False)
    assert read(text_file(tmp_path / "d.jsonl", record + "\n")).cells["text"] == [text]


def test_numbers_and_truth_values_of_json_become_text(tmp_path: Path) -> None:
    columns = read(
        text_file(tmp_path / "d.jsonl", '{"text": 3, "label": 0, "more": true}\n{"label": 1, "text": 1.5, "more": false}\n')
    )
    assert columns.cells == {"text": ["3", "1.5"], "label": ["0", "1"], "more": ["True", "False"]}


@pytest.mark.parametrize(
    ("name", "content", "where", "what"),
    [
        ("d.csv", "text,label\na,1\nb\nc,1,2\n", ":3", "the row has 1 field (2 such rows)"),
        ("d.tsv", "text\tlabel\na\t1\nb\tc\td\n", ":3", "the row has 3 fields (1 such row)"),
        ("d.csv", "text,label,text\na,1,b\n", ":1", "names a column twice"),
        ("d.csv", "text,label\n", "", "has a header and no rows"),
        ("d.csv", "\n", "", "has a header and no rows"),
        ("d.csv", "text,label\n,\n", "", "has a header and no rows"),
        ("d.csv", "", "", "the file is empty"),
        ("d.jsonl", "", "", "the file is empty"),
        ("d.parquet", "", "", "the file is empty"),
        ("d.jsonl", "\n\n", "", "no rows"),
        ("d.json", "[]", "", "no rows"),
        ("d.jsonl", '{"text": "a"}\n{"text": }\n', ":2", "is not valid JSON"),
        ("d.json", '[{"text": "a"},\n {"text": }]', ":2", "is not valid JSON"),
        ("d.jsonl", '{"text": "a"}\n[1]\n', ":2", "is not a JSON object"),
        ("d.jsonl", '"a"\n', ":1", "is not a JSON object"),
        ("d.parquet", "PAR1 no parquet", "", "is not a Parquet file"),
        ("d.xlsx", "text", "", "is of a kind that is not read"),
        ("d", "text", "", "is of a kind that is not read"),
    ],
)
def test_broken_file_is_refused_with_its_place(name: str, content: str, where: str, what: str, tmp_path: Path) -> None:
    path = text_file(tmp_path / name, content)
    problem = refused(path)
    assert problem.where == f"{path}{where}"
    assert what in problem.what


def test_wrong_field_count_is_refused_with_the_columns_that_are_expected(tmp_path: Path) -> None:
    assert refused(text_file(tmp_path / "d.csv", "text,label\na\n")).expected == "2 fields: text, label"


def test_wrong_suffix_is_refused_with_the_suffixes_that_are_read(tmp_path: Path) -> None:
    problem = refused(text_file(tmp_path / "d.xlsx", "text"))
    assert all(suffix in problem.expected for suffix in SUFFIXES)


def test_few_broken_rows_are_left_out_where_they_are_allowed(tmp_path: Path) -> None:
    path = text_file(tmp_path / "d.tsv", "text\tlabel\n" + "a\t1\n" * 999 + "broken\n" + "b\t0\n")
    columns = read(path, broken_rows_allowed=0.001)
    assert len(columns) == 1000
    assert columns.skipped == [1001]
    assert columns.lines[-1] == 1002
    text_file(path, path.read_text(encoding="utf-8") + "broken\n")
    with pytest.raises(RequestError, match=r"the row has 1 field \(2 such rows\)"):
        read(path, broken_rows_allowed=0.001)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_text_that_is_not_utf8_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_bytes("text,label\nnaïve,1\n".encode("latin-1"))
    problem = refused(path)
    assert problem.where == f"{path}:2"
    assert problem.what == "byte 3 of the line is not UTF-8 (0xef)"
    assert problem.expected == "UTF-8"


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        assert refused(path) == Problem(str(path), "there is no such file")


@pytest.mark.parametrize(
    "text", ['{"text": "a", "label": 1}\n\n{"text": "b"}\n', '{"text": "a", "label": 1}\n\n{"text": "b", "label": null}']
)
def test_rows_without_a_value_are_noted_in_json(text: str, tmp_path: Path) -> None:
    assert read(text_file(tmp_path / "d.jsonl", text)).missing == {"label": [1]}


def test_rows_without_a_value_are_noted_in_parquet(tmp_path: Path) -> None:
    cells: dict[str, list[Any]] = {"text": ["a", "b", "c"], "label": ["x", None, None]}
    pyarrow.parquet.write_table(pyarrow.table(cells), tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet").missing == {"label": [1, 2]}


def test_parquet_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    assert "text" in refused(tmp_path / "d.parquet").found


@pytest.mark.parametrize("name", ["d.json", "d.jsonl"])
def test_number_too_long_for_python_is_refused(name: str, tmp_path: Path) -> None:
    path = text_file(tmp_path / name, '{"text": ' + "9" * 5000 + "}\n")
    assert refused(path).where.startswith(str(path))


@settings(deadline=None, database=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.binary(min_size=1, max_size=60) | st.text("ab,\t\n\r\"'{}[]:0né\ufeff", min_size=1, max_size=60).map(str.encode),
    suffix=st.sampled_from(SUFFIXES),
    header=st.none() | st.just(("text", "label")),
)
def test_any_bytes_give_columns_or_a_refusal(
    content: bytes, suffix: str, header: tuple[str, ...] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    columns: Columns | None = None
    try:
        columns = read(path, header)
    except RequestError as error:
        where = error.problems[0].where
        path.unlink()
        if not where.startswith(str(path)):
            pytest.fail(f"the refusal does not name the file: {error}")
        return
    assert len(columns) > 0
    assert all(len(cells) == len(columns) for cells in columns.cells.values())
