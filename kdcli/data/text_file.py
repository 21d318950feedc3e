"""A file's bytes as lines of text, or what they are instead: another encoding, an archive, a workbook."""

from __future__ import annotations

import codecs
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

from kdcli.errors import Problem, RequestError

_HEAD = 4096
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = (
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\0", "xz", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -d"),
)
_OTHER_KINDS = (
    (b"PAR1", "a Parquet file", "cp {path} {stem}.parquet"),
    (b"ARROW1\0\0", "an Arrow file", "save it as Parquet"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as CSV UTF-8 in a spreadsheet program"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"%PDF-", "a PDF document", ""),
    (b"\x89HDF\r\n", "an HDF5 file", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "git lfs pull"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
_BEYOND_LATIN = 0.2


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends, which are CR, LF or both, as Python's universal newlines are.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark; the mark is no part of it.

    Raises:
        RequestError: the file holds something else, is not valid in its encoding, or has NUL characters; with the line.
    """
    encoding = _encoding(path, refuse_other_kinds(path))
    number = 0
    with path.open(encoding=encoding, newline="") as file:
        try:
            for line in file:
                number += 1
                if "\0" in line:
                    raise RequestError(_nul(path, number, line.index("\0") + 1))
                yield line
        except UnicodeDecodeError:
            raise RequestError(_not_valid(path, encoding)) from None


def encoding_note(path: Path) -> list[str]:
    """What is to be said about a file's encoding, where it is not UTF-8."""
    with path.open("rb") as file:
        head = file.read(4)
    name = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    return [] if name.startswith("utf-8") else [f"read as {name.upper()}, by its byte order mark"]


def beside(path: Path, suffix: str | None = None) -> Path:
    """A name for a mended copy of a file."""
    return path.with_name(f"{path.stem}-mended{path.suffix if suffix is None else suffix}")


def shell(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def _encoding(path: Path, head: bytes) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" in head:
        wide = _wide(head)
        if wide is not None:
            raise RequestError(
                Problem(
                    f"{path}:1",
                    f"the file seems to be {wide} without a byte order mark",
                    "UTF-8",
                    remedy=f"iconv -f {wide} -t UTF-8 {shell(path)} > {shell(beside(path))}",
                )
            )
    return "utf-8"


def _wide(head: bytes) -> str | None:
    """The encoding that text with so many NUL bytes at these places is in."""
    quarters = [head[place::4].count(0) / max(len(head[place::4]), 1) for place in range(4)]
    even, odd = (quarters[0] + quarters[2]) / 2, (quarters[1] + quarters[3]) / 2
    if min(quarters[2:]) > 0.9 and quarters[0] < 0.1:
        return "UTF-32LE"
    if min(quarters[:2]) > 0.9 and quarters[3] < 0.1:
        return "UTF-32BE"
    if odd > 0.3 and even < 0.1:
        return "UTF-16LE"
    return "UTF-16BE" if even > 0.3 and odd < 0.1 else None


def _nul(path: Path, line: int, place: int) -> Problem:
    return Problem(
        f"{path}:{line}",
        f"character {place} of the line is NUL",
        "text",
        remedy=f"tr -d '\\000' < {shell(path)} > {shell(beside(path))}",
    )


def _not_valid(path: Path, encoding: str) -> Problem:
    """Where a file stops being what it should be, and how it can be brought to UTF-8."""
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        mark = len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0  # places are counted without it
        begin, cut_off = error.start + mark, error.end + mark >= len(data) and "end" in error.reason
    before = data[:begin].decode(encoding, errors="ignore")
    line = before.count("\n") + before.count("\r") - before.count("\r\n") + 1
    name = encoding.removesuffix("-sig").upper()
    since = max(data.rfind(b"\n", 0, begin), data.rfind(b"\r", 0, begin)) + 1 if name == "UTF-8" else 0
    if since == 0 and name == "UTF-8":
        since = mark
    place = f"byte {begin - since + 1} of the line" if name == "UTF-8" else f"byte {begin + 1} of the file"
    what = (
        f"{place} is not {name} (0x{data[begin]:02x})"
        if not cut_off
        else f"the file ends in the middle of a character of {name}"
    )
    around = data[max(since, begin - 20) : begin + 20].decode("cp1252", errors="replace") if name == "UTF-8" else ""
    return Problem(
        f"{path}:{line}", what, "UTF-8", repr(around) if around else "", _conversion(path, data, name, cut_off=cut_off)
    )


def _conversion(path: Path, data: bytes, name: str, *, cut_off: bool) -> str:
    into = f"-t UTF-8 {shell(path)} > {shell(beside(path))}"
    if name != "UTF-8" or cut_off:
        return f"iconv -c -f {name} {into}"
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    sound = len(re.sub(r"[\x00-\x7f]", "", data.decode("utf-8", errors="ignore")))
    if 2 * sound > high - 2 * sound:  # most of what is not ASCII is UTF-8: damaged, not of another encoding
        return f"iconv -c -f UTF-8 {into}  # leaves the damaged bytes out"
    if high > _BEYOND_LATIN * len(data):
        return f"iconv -f ENCODING {into}  # ENCODING: the file's own, such as GB18030, SHIFT_JIS, CP1251"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return f"iconv -f ISO-8859-1 {into}"
    return f"iconv -f CP1252 {into}"


def refuse_other_kinds(path: Path) -> bytes:
    """The first bytes of a file, if they are not those of an archive, a workbook or another kind that is not text.

    Raises:
        RequestError: they are; it says of which.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for magic, name, command in _PACKED:
        if head.startswith(magic):
            plain = path.with_suffix("") if path.suffix in (".gz", ".bz2", ".xz", ".zst") else beside(path)
            raise RequestError(
                Problem(str(path), f"is packed with {name}", "text", remedy=f"{command} < {shell(path)} > {shell(plain)}")
            )
    if head.startswith(b"PK\x03\x04"):
        raise RequestError(_archive(path))
    for magic, name, remedy in _OTHER_KINDS:
        if head.startswith(magic):
            named = remedy.format(path=shell(path), stem=shell(path.with_suffix("")))
            raise RequestError(Problem(str(path), f"is {name}", "text", remedy=named))
    if _WEB_PAGE.match(head.removeprefix(codecs.BOM_UTF8)):
        raise RequestError(
            Problem(f"{path}:1", "is a web page or XML", "a table", repr(head[:60].decode("utf-8", errors="replace")))
        )
    return head


def _archive(path: Path) -> Problem:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if any(name.startswith(("xl/", "word/")) or name == "content.xml" for name in names):
        kind = "a Word document" if any(name.startswith("word/") for name in names) else "a spreadsheet (.xlsx, .ods)"
        return Problem(str(path), f"is {kind}", "text", remedy="save it as CSV UTF-8 in a spreadsheet program")
    found = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return Problem(str(path), "is a zip archive", "text", found, f"unzip {shell(path)}")
