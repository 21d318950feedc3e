"""Writing so that a kill or a power cut leaves the last whole state: beside the place, flushed, then renamed into it.

Folders that are read back later are sealed: a list of SHA-256 sums lies in them, in the form that ``sha256sum -c`` reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[\n\s*(-?[\d.][-+.\deE]*(?:,\s+-?[\d.][-+.\deE]*)*)\n\s*\]")
_NOT_SHOWN = re.compile(r"[\x7f-\x9f\ud800-\udfff]")

_unfinished: set[Path] = set()


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Within the block a file or folder is not worth keeping: if the process is ended by force, it is removed.

    However else the block ends, who writes it removes it.
    """
    _unfinished.add(path)
    try:
        yield path
    finally:
        _unfinished.discard(path)


def remove_unfinished() -> None:
    """Remove what :func:`unfinished` knows of, when the process is about to end and no ``finally`` will be reached."""
    for path in list(_unfinished):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of the system's temporary ones, removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="kdcli-") as name, unfinished(Path(name)) as folder:
        yield folder


SUMS = "SHA256SUMS"
_OWN_SUM = "# of the lines above: "  # a comment to sha256sum
_SUM = re.compile(r"([0-9a-f]{64})  (.+)")


@contextmanager
def whole_folder(path: Path, sealed: bool = False, known: Mapping[str, str] | None = None) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error.

    All files are readable by those who may read files that this user makes (safetensors writes for the user alone), and are
    on the disk before the folder has its name.

    Args:
        path: where the folder shall be.
        sealed: write the sums of all files into it, for :func:`damage` to look at.
        known: sums that are known already, by file; they are taken over, so that damage since then is not sealed as right.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with unfinished(partial):
            yield partial
            if sealed:
                sums = {name: (known or {}).get(name) or sha256(partial / name) for name in _files_in(partial)}
                text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
                write_text(partial / SUMS, f"{text}{_OWN_SUM}{_text_sum(text)}\n")
            _settle(partial)
        old = _set_aside(recovered(path))
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        _flush(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recovered(path: Path) -> Path:
    """The folder, put back into its place if a kill fell between the two renames of :func:`whole_folder`."""
    if not path.exists() and _set_aside(path).is_dir():
        _set_aside(path).rename(path)
    return path


def _set_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def damage(folder: Path) -> str:
    """What is not as a sealed folder was written, as half a sentence; empty where all is well.

    Files that were added since are nobody's damage.
    """
    sums = sums_of(folder)
    if not sums:
        return f"{SUMS} is missing or damaged"
    for name, digest in sums.items():
        try:
            if sha256(folder / name) != digest:
                return f"{name} is not what was written: its checksum differs"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def sums_of(folder: Path) -> dict[str, str]:
    """File → SHA-256, as a sealed folder lists them; empty where the list is missing or damaged."""
    try:
        text, _, own = (folder / SUMS).read_text(encoding="utf-8").rpartition(_OWN_SUM)
    except (OSError, UnicodeDecodeError):
        return {}
    if own != f"{_text_sum(text)}\n":
        return {}
    return {match[2]: match[1] for match in map(_SUM.fullmatch, text.splitlines()) if match}


def _text_sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_with_sum(partial: Path, path: Path) -> None:
    """Put a file that is written whole into its place, with its sum in a file of its own beside it."""
    write_text(_sum_file(path), f"{sha256(partial)}  {path.name}\n")
    _flush(partial)
    os.replace(partial, path)
    _flush(path.parent)


def has_its_sum(path: Path) -> bool:
    """Whether a file is what :func:`replace_with_sum` put there."""
    try:
        return _sum_file(path).read_bytes() == f"{sha256(path)}  {path.name}\n".encode()
    except OSError:
        return False


def _sum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _settle(folder: Path) -> None:
    """Give every file below a folder the rights of its neighbours, and put all of it on the disk."""
    rights = folder.stat().st_mode & 0o666  # the folder was just made, so that these are what the umask leaves
    for path in folder.rglob("*"):
        if path.is_file():
            mode = path.stat().st_mode & 0o777
            if mode | rights != mode:
                path.chmod(mode | rights)
        _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if not path.is_dir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return
    flush_folder(path)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; where the system cannot do that, nothing is done."""
    with suppress(OSError):
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with unfinished(partial):
            partial.write_text(text, encoding="utf-8")
            _flush(partial)
            os.replace(partial, path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document as a whole."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """A JSON document to read: indented, lists of numbers on one line.

    What JSON has no word for (NaN, infinity) is null; characters that a terminal would obey, and halves of characters, are
    escaped.

    >>> print(json_text({"confusion": [[1, 2], [3, 4]]}))
    {
      "confusion": [
        [1, 2],
        [3, 4]
      ]
    }
    """
    text = _NOT_SHOWN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(_without_nan(value), indent=2, ensure_ascii=False))
    return _NUMBERS.sub(lambda match: "[" + ", ".join(part.strip() for part in match[1].split(",")) + "]", text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    return [_without_nan(part) for part in value] if isinstance(value, list | tuple) else value
