"""JSON files of a model folder: bounded, strict, and refused by name and key where they are not what they should be."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kdcli.errors import Problem, RequestError

_MOST_BYTES = 16 * 2**20
_DEEPEST = 32


def read_object(path: Path, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: the file.
        most_bytes: a longer file is refused before it is read.

    Raises:
        RequestError: the file is not there, too long, no UTF-8, no JSON or no object; it writes a key twice, nests deeper than
            any configuration does, or holds a number that is not finite.
    """
    text = _text(path, most_bytes)
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except _TwiceError as error:
        raise RequestError(Problem(str(path), f"the key {brief(str(error))} stands there twice", "each key once")) from error
    except RecursionError as error:
        raise RequestError(Problem(str(path), "is nested too deeply", f"at most {_DEEPEST} levels")) from error
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise RequestError(Problem(where, "is not valid JSON", "one JSON object", brief(error.msg))) from error
    except ValueError as error:
        raise RequestError(Problem(str(path), "is not valid JSON", "one JSON object", brief(str(error)))) from error
    if not isinstance(value, dict):
        raise RequestError(Problem(str(path), "does not hold a JSON object", '{"key": value, …}', shown(value)))
    _check_values(path, value)
    return value


def _text(path: Path, most_bytes: int) -> str:
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise RequestError(Problem(str(path), "is too long", f"at most {most_bytes:,} bytes", f"{size:,} bytes"))
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            Problem(str(path), "is not UTF-8 text", found=f"byte 0x{error.object[error.start]:02x} at position {error.start}")
        ) from error
    except OSError as error:
        raise RequestError(Problem(str(path), "cannot be read", found=str(error.strerror or error))) from error


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _check_values(path: Path, top: Mapping[str, Any]) -> None:
    """Refuse numbers that are not finite and nesting without end, level by level."""
    level: list[tuple[str, Any]] = list(top.items())
    for _ in range(_DEEPEST):
        deeper: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise refused(path, key, "is not a finite number", "a finite number", value)
            if isinstance(value, dict):
                deeper += [(f"{key}.{name}", child) for name, child in value.items()]
            elif isinstance(value, list):
                deeper += [(key, child) for child in value]
        level = deeper
    if level:
        raise refused(path, level[0][0][:40], "is nested too deeply", f"at most {_DEEPEST} levels")


def refused(path: Path, key: str, what: str, expected: str = "", found: object = "", remedy: str = "") -> RequestError:
    """The error about one key of a file; long values are cut."""
    where = f"{path}  {brief(key, 80)}" if key else str(path)
    return RequestError(Problem(where, what, expected, found if isinstance(found, str) else shown(found), remedy))


def blamed(content: Mapping[str, Any], works: Callable[[dict[str, Any]], object], said: str = "") -> list[str]:
    """The keys that an error speaks of, and those without which ``works`` raises nothing; there may be none.

    Args:
        content: the file's content.
        works: raises where the content that it is given is wrong.
        said: the message of the error.
    """
    keys = []
    for key in content:
        plain = re.escape(key.removeprefix("num_").replace("_", " "))
        if " " in plain and re.search(rf"\b{plain}\b", said.casefold()):
            keys.append(key)
            continue
        try:
            works({name: value for name, value in content.items() if name != key})
        except Exception:
            continue
        keys.append(key)
    return keys


def written(content: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The values of some keys, for messages."""
    return ", ".join(shown(content[key]) for key in keys)


def shown(value: object) -> str:
    """A value as JSON writes it, cut where it is long."""
    if isinstance(value, str):
        return brief(json.dumps(value[:200], ensure_ascii=False))
    if isinstance(value, dict | list) and len(value) > 20:
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,} entries"
    try:
        return brief(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__


def brief(text: str, most: int = 160) -> str:
    """Text on one line, cut where it is long."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
