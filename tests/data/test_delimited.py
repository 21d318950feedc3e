"""CSV and TSV: every row is read, or left out and named, or refused where it begins to go wrong."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcli.data.readers import Columns, read
from kdcli.errors import Problem, RequestError

ROWS = "".join(f"a scene number {row},{'dull' if row % 2 else 'fine'}\n" for row in range(10))
LINES = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def table(path: Path, content: str | bytes) -> Columns:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    columns = read(path)
    assert all(note.startswith(f"{path.name}: ") for note in columns.notes)
    columns.notes = [note.removeprefix(f"{path.name}: ") for note in columns.notes]
    return columns


def refused(path: Path, content: str | bytes) -> Problem:
    with pytest.raises(RequestError) as caught:
        table(path, content)
    (problem,) = caught.value.problems
    return problem


def run(remedy: str) -> None:
    """Do what a message says."""
    command = remedy.replace("python -c", f"{sys.executable} -c", 1)
    subprocess.run(["bash", "-c", command], check=True, timeout=60)


@pytest.mark.parametrize(
    ("wrong", "line", "what"),
    [
        ('"the plot,fine\n', 12, "opens here and never closes"),
        ('"a\nb",fine\n"the plot,fine\n', 14, "opens here and never closes"),
        ('"a\n""b,fine\n', 12, "opens here and never closes"),
        ('the plot,"fine\n', 12, "opens here and never closes"),
        ('"the plot,fine\nsays "yes",dull\n', 12, "the next one, in line 13, is not at the end of a cell"),
        ('"the" plot,fine\n', 12, "text stands between a closing quotation mark and the next separator"),
        (r'"the \"plot\"",fine' + "\n", 12, "text stands between a closing quotation mark"),
        ('"the plot,fine\nits ending",dull\n', 12, "runs over 2 lines that read as rows of their own"),
        ('"the plot,fine\nmusic,dull\nits ending",dull\n', 12, "runs over 3 lines"),
        ('"the plot,fine\nfar, far away",dull\n', 12, "runs over 2 lines"),
    ],
)
def test_quotation_mark_that_goes_wrong_is_named_where_it_opens(wrong: str, line: int, what: str, tmp_path: Path) -> None:
    after = "" if wrong == 'the plot,"fine\n' else ROWS
    problem = refused(tmp_path / "d.csv", "text,label\n" + ROWS + wrong + after)
    assert problem.where == f"{tmp_path / 'd.csv'}:{line}"
    assert what in problem.what


def test_marks_closed_by_chance_are_found_where_the_text_is_last(tmp_path: Path) -> None:
    content = 'label,text\nfine,a\ndull,b\nfine,"the plot\ndull,the end"\nfine,c\n'
    assert refused(tmp_path / "d.csv", content).where.endswith(":4")


def test_open_mark_in_a_long_file_is_found_without_reading_to_its_end(tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.csv", 'text,label\n"a,fine\n' + "b,dull\n" * 3000)
    assert problem.where.endswith(":2")
    assert "runs over 1000 lines" in problem.what


@pytest.mark.parametrize(
    "text",
    ["Hello, you\nbye", "one,\ntwo,\nthree", "pros,cons\nlong,short", 'say ""hi""\n\nbye', "a\r\nb\rc", "\n", ",\n,"],
)
def test_texts_with_line_breaks_are_read_and_counted(text: str, tmp_path: Path) -> None:
    columns = table(tmp_path / "d.csv", f'text,label\n{ROWS}"{text}",fine\n{ROWS}')
    assert columns.cells["text"][10] == text.replace('""', '"')
    assert len(columns) == 21
    assert columns.lines[10] == 12
    assert columns.notes[0].startswith("1 row with line breaks in a cell; the longest takes lines 12 to ")


CELL = st.text('ab,;"\n\r \té\u2028', max_size=6)


@LINES
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_that_a_writer_writes_are_read_as_they_were(
    rows: list[tuple[str, str]], end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every row comes back as it was, or is named among those at the end without any value, or the file is refused."""
    out = io.StringIO()
    if end == "\r\n":
        csv.writer(out, lineterminator=end).writerows([("text", "label"), *rows])
    else:  # a writer leaves the other half of a CRLF bare
        csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    try:
        columns = table(tmp_path_factory.getbasetemp() / "written.csv", out.getvalue())
    except RequestError:
        return
    kept = list(zip(columns.cells["text"], columns.cells["label"], strict=True))
    assert kept == rows[: len(kept)]
    assert not any(cell.strip() for row in rows[len(kept) :] for cell in row)
    assert len(kept) == len(rows) or any("without any value at the end" in note for note in columns.notes)


@LINES
@given(lines=st.lists(st.sampled_from(["a\tb", "a", "", "  ", "a\tb\tc", '"a\tb', "\t"]), min_size=1, max_size=12))
def test_lines_read_and_left_out_are_all_lines(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.tsv"
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    blank = sum(not line.strip(" ") for line in lines)
    whole = sum(line.count("\t") == 1 for line in lines)
    try:
        columns = read(path, broken_rows_allowed=100.0)
    except RequestError:
        assert whole == 0
        return
    assert len(columns) == whole
    assert len(columns.skipped) == len(lines) - whole - blank
    assert any(note.startswith(f"lines.tsv: {blank} blank line") for note in columns.notes) == (blank > 0)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_of_a_csv_are_read_with_a_note(separator: str, tmp_path: Path) -> None:
    content = 'text;label\na, b;fine\n"c;d ""e""";dull\n'.replace(";", separator)
    columns = table(tmp_path / "d.csv", content)
    assert columns.cells == {"text": ["a, b", f'c{separator}d "e"'], "label": ["fine", "dull"]}
    assert "between the fields" in columns.notes[0]


def test_commas_in_a_tsv_and_a_stated_separator_are_read_with_a_note(tmp_path: Path) -> None:
    assert table(tmp_path / "d.tsv", 'text,label\n"a, b",fine\n').cells == {"text": ["a, b"], "label": ["fine"]}
    columns = table(tmp_path / "d.csv", "sep=;\ntext;label\na, b;fine\n")
    assert (columns.cells["text"], columns.lines) == (["a, b"], [3])


def test_columns_without_name_are_left_out_if_empty_and_named_if_not(tmp_path: Path) -> None:
    columns = table(tmp_path / "d.csv", "text,label,,\na,fine,,\nb,dull,,\n")
    assert list(columns.cells) == ["text", "label"]
    assert columns.notes == ["2 columns without name and values left out"]
    columns = table(tmp_path / "d.csv", ",text,label,\n7,a,fine,\n3,b,dull,more\n")
    assert columns.cells == {"index": ["7", "3"], "text": ["a", "b"], "label": ["fine", "dull"], "column 4": ["", "more"]}
    assert len(columns.notes) == 2


def test_rows_of_separators_alone_are_left_out_at_the_end_only(tmp_path: Path) -> None:
    columns = table(tmp_path / "d.csv", "text,label\na,fine\n,\nb,dull\n,\n, \n")
    assert columns.cells["text"] == ["a", "", "b"]
    assert columns.missing == {"text": [1], "label": [1]}
    assert columns.notes == ["2 rows without any value at the end left out (lines 5, 6)"]


def test_header_is_the_first_line_with_anything_and_its_names_are_tidy(tmp_path: Path) -> None:
    columns = table(tmp_path / "d.csv", '\n"\ufeffText", "Label"\na, fine\n"b, c", "dull"\n')
    assert columns.cells == {"Text": ["a", "b, c"], "Label": ["fine", "dull"]}
    assert "spaces behind a separator are left out" in columns.notes


def test_header_that_comes_again_is_refused(tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.csv", "text,label\na,fine\ntext,label\nb,dull\n")
    assert problem.where.endswith(":3")
    run(problem.remedy)
    assert read(tmp_path / "d.csv").cells["label"] == ["fine", "dull"]


@pytest.mark.parametrize("content", ["good,1\nbad,0\nso so,1\n", "good,fine\nbad,dull\nx,fine\ny,fine\nz,dull\n"])
def test_missing_header_gets_a_hint_that_works(content: str, tmp_path: Path) -> None:
    columns = table(tmp_path / "d.csv", content)
    run(columns.hint)
    assert list(read(tmp_path / "d.csv").cells) == ["text", "label"]
    assert len(read(tmp_path / "d.csv")) == len(columns) + 1
    assert table(tmp_path / "d.csv", "0,1\na,1\nb,0\n").hint == table(tmp_path / "d.csv", "text,label\na,1\n").hint == ""


def test_tsv_that_was_written_with_quoting_is_read_so(tmp_path: Path) -> None:
    columns = table(tmp_path / "d.tsv", 'text\tlabel\n"say ""hi"""\tfine\n"b"\tdull\n')
    assert columns.cells["text"] == ['say "hi"', "b"]
    assert columns.notes[0].startswith("read with quoting: 2 cells")
    columns = table(tmp_path / "d.tsv", 'text\tlabel\n"b"\tdull\n')
    assert columns.cells["text"] == ['"b"']
    assert columns.notes == ["1 cell in quotation marks, which are part of the text here"]


def test_tsv_with_line_breaks_in_marks_is_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    problem = refused(tmp_path / "d.tsv", 'text\tlabel\n"a\nb"\tfine\nc\tdull\n')
    assert problem.where.endswith(":2")
    run(problem.remedy)
    assert read(tmp_path / "d.csv").cells["text"] == ["a\nb", "c"]


def test_space_before_a_quotation_mark_is_refused_with_a_remedy_that_works(tmp_path: Path) -> None:
    problem = refused(tmp_path / "it's d.csv", 'text,label\na, "fine"\nb,dull\n')
    assert problem.where.endswith(":2")
    run(problem.remedy)
    assert read(tmp_path / "it's d-mended.jsonl").cells["label"] == ["fine", "dull"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl"])
def test_encodings_with_a_byte_order_mark_are_read(encoding: str, name: str, tmp_path: Path) -> None:
    content = {"d.csv": "text,label\nnaïve,fine\n", "d.tsv": "text\tlabel\nnaïve\tfine\n"}.get(name, '{"text": "naïve"}\n')
    columns = table(tmp_path / name, content.encode(encoding))
    assert columns.cells["text"] == ["naïve"]
    assert [note.split(",")[0] for note in columns.notes] == ([] if "sig" in encoding else [f"read as {encoding.upper()}"])


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("text,label\nnaïve café,fine\n".encode("cp1252"), 2, "byte 3 of the line is not UTF-8 (0xef)"),
        ("text,label\r\na,fine\r\nnaïve €,fine\r\n".encode("cp1252"), 3, "byte 3 of the line"),
        ("text,label\nnaïve,fine\n".encode("latin-1") + b"\x81,dull\n", 2, "byte 3 of the line"),
        ("text,label\nnaïve,fine\n".encode("utf-16-le"), 1, "UTF-16LE without a byte order mark"),
        ("text,label\nnaïve,fine\n".encode("utf-16-be"), 1, "UTF-16BE without a byte order mark"),
        ("text,label\nnaïve,fine\n".encode("utf-32-le"), 1, "UTF-32LE without a byte order mark"),
        ("text,label\nnaïve café,fine\n".encode() + b"\xff,dull\n", 3, "byte 1 of the line"),
        ("text,label\na,fine\nb,café".encode()[:-1], 3, "ends in the middle of a character"),
        (b"text,label\na\0b,fine\n", 2, "character 2 of the line is NUL"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_a_remedy_that_works(
    content: bytes, line: int, what: str, tmp_path: Path
) -> None:
    problem = refused(tmp_path / "a d.csv", content)
    assert problem.where == f"{tmp_path / 'a d.csv'}:{line}"
    assert what in problem.what
    subprocess.run(["bash", "-c", problem.remedy], check=False, timeout=60)  # iconv -c says 1 where it left something out
    mended = read(tmp_path / "a d-mended.csv")
    assert set(mended.cells) == {"text", "label"}
    assert mended.cells["text"][-1] in {"naïve café", "naïve €", "naïve", "\x81", "", "b", "ab"}


def _zipped(name: str) -> bytes:
    """A zip archive without the time at which it is made: two workers have to give the tests the same names."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"text,label\na,fine\n", mtime=0), "is packed with gzip"),  # a time would be in the test's name
        (_zipped("train.csv"), "is a zip archive"),
        (_zipped("xl/workbook.xml"), "is a spreadsheet"),
        (b"PAR1...", "is a Parquet file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1...", "is an old Office document"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "is a web page"),
        (b'{"text": "a", "label": "fine"}\n', "is JSON"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_other_kinds_of_files_are_named_as_what_they_are(content: bytes, what: str, suffix: str, tmp_path: Path) -> None:
    assert refused(tmp_path / f"d{suffix}", content).what.startswith(what)


def test_packed_file_is_unpacked_as_its_message_says(tmp_path: Path) -> None:
    run(refused(tmp_path / "d.csv.gz", gzip.compress(b"text,label\na,fine\n")).remedy)
    assert read(tmp_path / "d.csv").cells["text"] == ["a"]


def test_lone_carriage_return_ends_a_line(tmp_path: Path) -> None:
    assert table(tmp_path / "d.csv", "text,label\ra,fine\rb,dull\r").lines == [2, 3]
    problem = refused(tmp_path / "d.csv", "text,label\na\rb,fine\n")
    assert problem.where.endswith(":2")
    assert "a carriage return ends a line, too" in problem.expected
