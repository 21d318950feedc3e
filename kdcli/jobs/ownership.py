"""One run folder, one process that writes into it: a lock that dies with its process."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from kdcli.errors import Problem, RequestError, RunTakenError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a run folder, for the length of the block.

    The lock is the operating system's (``flock`` on a file in the folder), so that it ends with its process however that
    ends; a file that a dead process left behind stands in nobody's way. On network file systems it holds as far as their
    locks do; where there are none, the folder is used without.

    Raises:
        RunTakenError: another process is at work there.
        RequestError: the folder cannot be written to.
    """
    if fcntl is None:
        yield
        return
    place = _locked(folder / LOCK)
    try:
        os.ftruncate(place, 0)
        os.write(place, f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}".encode())
        yield
    finally:
        with suppress(OSError):
            if _is_at(place, folder / LOCK):
                (folder / LOCK).unlink()
        os.close(place)


def _locked(path: Path) -> int:
    """The lock file, open and locked."""
    while True:
        try:
            place = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise RequestError(
                Problem(str(path.parent), "cannot be written to", "a folder that you may write to", error.strerror or "")
            ) from error
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                owner = os.read(place, 500).decode("utf-8", errors="replace") or "a process that has just begun"
                os.close(place)
                raise RunTakenError(
                    Problem(
                        str(path.parent),
                        "another process is at work in this run",
                        "a run that nobody else writes into",
                        owner,
                        "wait until it has ended, or end it",
                    )
                ) from error
            return place  # a file system without locks
        if _is_at(place, path):
            return place
        os.close(place)  # its owner has just ended, and removed it


def _is_at(place: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(place), path.stat(follow_symlinks=False))
    except OSError:
        return False
