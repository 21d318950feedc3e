"""Writing so that a kill at any moment leaves the last whole state: beside the place, then renamed into it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[\n\s*(-?[\d.][-+.\deE]*(?:,\s+-?[\d.][-+.\deE]*)*)\n\s*\]")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
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
