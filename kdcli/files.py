"""Writing so that a kill at any moment leaves the last whole state: beside the place, then renamed into it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_NUMBERS = re.compile(r"\[\n\s*(-?[\d.][-+.\deE]*(?:,\s+-?[\d.][-+.\deE]*)*)\n\s*\]")
_NOT_SHOWN = re.compile(r"[\x7f-\x9f\ud800-\udfff]")


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
