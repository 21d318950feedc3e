"""Where results that cost time are kept for the next run, and how they come and go.

The cache lies in the folder that the environment variable ``KDCLI_CACHE`` names; else in ``$XDG_CACHE_HOME/kdcli``, else
in ``~/.cache/kdcli``. ``KDCLI_CACHE=off`` (or empty) keeps nothing. All of it may be deleted at any time.

A cache is a convenience: a full disk, a folder that cannot be written or two runs at once never fail a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import BinaryIO
from uuid import uuid4

CACHE = "KDCLI_CACHE"
OFF = ("", "off")
UNUSED_DAYS = 30
SIZE_LIMIT = 2 * 2**30
_DAY = 24 * 60 * 60


def cache_root() -> Path:
    """The folder of all caches, which need not exist; what it would be where keeping is off.

    Raises:
        RuntimeError: no folder is named and the user has no home.
    """
    named = os.environ.get(CACHE)
    if named is not None and not _is_off():
        return Path(named).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "kdcli"  # XDG: a relative path is to be ignored


def cache_folder(name: str) -> Path | None:
    """The folder of one cache, which need not exist; None where nothing is to be kept."""
    try:
        return None if _is_off() else cache_root() / name
    except RuntimeError:
        return None


def _is_off() -> bool:
    named = os.environ.get(CACHE)
    return named is not None and named.lower() in OFF


def keep(place: Path, write: Callable[[BinaryIO], None]) -> bool:
    """Write a file as a whole, beside its place and then renamed; two processes may do so at once.

    Args:
        place: where the file shall be; its folder is made, for this user alone.
        write: writes the content; an OSError means that it cannot be kept, other errors are passed on.

    Returns:
        Whether the file was kept.
    """
    partial = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name without the content
        os.replace(partial, place)
    except OSError:
        return False
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return True


def mark_used(place: Path) -> None:
    """Note that a kept file was used now, so that it outlives those that were not."""
    with suppress(OSError):
        os.utime(place)


def sweep(folder: Path, spare: Path, size_limit: int = SIZE_LIMIT) -> None:
    """Remove what was not used for 30 days, then the longest unused files until the folder is within its limit.

    Args:
        folder: the folder of one cache; also what killed runs left there is removed.
        spare: a file that stays, whatever its size.
        size_limit: bytes that the folder may hold.
    """
    files = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                files.append((state.st_mtime, state.st_size, Path(entry.path)))
    size = sum(bytes_ for _, bytes_, _ in files)
    oldest_wanted = time() - UNUSED_DAYS * _DAY
    for last_use, bytes_, path in sorted(files):
        if last_use >= oldest_wanted and size <= size_limit:
            break
        if path != spare:
            with suppress(OSError):
                path.unlink()
                size -= bytes_
