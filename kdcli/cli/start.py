"""Where the program starts: signals are handled before anything large is imported, and what is left at the end is decided."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from kdcli.engine.interruption import (
    end_interrupted,
    end_quietly_on_signals,
    handle_signals,
    interrupted_by,
    reopen_stderr,
)


def main() -> None:
    """Run the command line; a signal ends it within seconds, in one line and with exit code 130."""
    _open_closed_streams()
    try:
        handle_signals(_last_words)
        from kdcli.cli.app import app

        app()
    except BaseException:
        if interrupted_by() is None:
            end_quietly_on_signals()
            raise
    if interrupted_by() is not None:
        _last_words()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        end_interrupted()


def _last_words() -> None:
    """One line about the interruption; imports nothing, since the main thread may be in the midst of importing."""
    say = getattr(sys.modules.get("kdcli.cli.session"), "say_interrupted", None)
    if say is not None:
        say()
    elif os.environ.get("RANK", "0") == "0":
        reopen_stderr()
        with suppress(OSError):
            os.write(2, f"stopped  interrupted by {interrupted_by()}\n".encode())


def _open_closed_streams() -> None:
    """Lead standard streams that are closed to nowhere: else a file that is opened later would become one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
