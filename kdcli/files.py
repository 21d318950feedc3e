"""Writing so that a kill at any moment leaves the last whole state: beside the place, then renamed into it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[\n\s*(-?[\d.][-+.\deE]*(?:,\s+-?[\d.][-+.\deE]*)*)\n\s*\]")

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


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with unfinished(partial):
            yield partial
        old = _set_aside(recovered(path))
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial.rename(path)
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


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with unfinished(partial):
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document as a whole."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """A JSON document to read: indented, lists of numbers on one line.

    >>> print(json_text({"confusion": [[1, 2], [3, 4]]}))
    {
      "confusion": [
        [1, 2],
        [3, 4]
      ]
    }
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _NUMBERS.sub(lambda match: "[" + ", ".join(part.strip() for part in match[1].split(",")) + "]", text)
