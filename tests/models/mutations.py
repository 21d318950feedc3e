"""Ways in which a JSON file of a model folder can be wrong, made from what stands in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP: Any = 1
for _ in range(60):
    DEEP = [DEEP]

VALUES: dict[str, Any] = {
    "null": None,
    "text": "x",
    "minus-one": -1,
    "zero": 0,
    "float": 1e9,
    "huge": 10**9,
    "list": [],
    "object": {},
    "true": True,
    "nan": float("nan"),
    "deep": DEEP,
}


def mutated(content: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of a file for every key with every odd value, and without the key."""
    for key in content:
        for name, value in VALUES.items():
            yield f"{key}={name}", json.dumps(content | {key: value}).encode()
        yield f"{key} left out", json.dumps({other: value for other, value in content.items() if other != key}).encode()


def broken(content: bytes) -> dict[str, bytes]:
    """Name → bytes of a file that is no whole JSON object."""
    return {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "no JSON": b"not JSON at all",
        "a list": b"[1, 2]",
        "a number": b"5",
        "null": b"null",
        "no UTF-8": content[:5] + b"\xff\xfe" + content[5:],
        "UTF-16": content.decode().encode("utf-16"),
        "nested without end": b'{"a":' + b"[" * 200_000,
        "twice the same key": b'{"' + next(iter(json.loads(content))).encode() + b'": 1, ' + content.lstrip()[1:],
        "digits without end": b'{"vocab_size": ' + b"9" * 5000 + b"}",
    }


def outcome(work: Callable[[], object], refusal: type[Exception]) -> str:
    """``done``, ``refused``, or the name of an error that nobody foresaw."""
    try:
        work()
    except refusal:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "done"


def linked(source: Path, folder: Path) -> Path:
    """The source's folder once more, its files as links, so that a test may replace some of them."""
    folder.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.suffix == ".safetensors":
            (folder / entry.name).hardlink_to(entry)
        else:
            (folder / entry.name).write_bytes(entry.read_bytes())
    return folder
