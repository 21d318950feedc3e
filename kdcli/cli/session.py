"""What every command does around its work: listeners, errors as one clear message, exit codes."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from kdcli.engine.interruption import interrupted_by, refuse_to_go_on, reopen_stderr
from kdcli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REQUEST,
    GateError,
    InterruptedRunError,
    KdcliError,
    RequestError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from kdcli.engine.events import Event, Events

DEBUG = "KDCLI_DEBUG"


def is_first_process() -> bool:
    """Whether this is the process that speaks; ``accelerate launch`` tells each its rank."""
    return os.environ.get("RANK", "0") == "0"


def results() -> Console:
    """Where tables go: standard output."""
    return _console(quiet=not is_first_process())


def messages() -> Console:
    """Where progress and errors go: standard error."""
    return _console(stderr=True)


def _console(**settings: bool) -> Console:
    from rich.console import Console

    from kdcli.cli.printable import Visible

    console = Console(highlight=False, **settings)  # type: ignore[arg-type]
    console.push_render_hook(Visible())
    return console


def print_document(text: str) -> None:
    """Print one JSON document to standard output."""
    if is_first_process():
        typer.echo(text)


@dataclass
class _Command:
    """What can be said of the command at hand if it is interrupted.

    Attributes:
        resumable: ``kdcli distill``, if the command has ``--resume``.
        run: the run folder, once it can be resumed.
        said: whether the interruption was told.
    """

    resumable: str | None = None
    run: str | None = None
    said: bool = False

    def interruption(self) -> str:
        """One sentence: by what, and what can be done."""
        what = f"interrupted by {interrupted_by() or 'Ctrl-C'}"
        if self.resumable is None:
            return what
        if self.run is None:
            return f"{what} before the run had begun"
        return f"{what}; {self.resumable} --resume --out {shlex.quote(self.run)} goes on"


_command = _Command()


@contextmanager
def session(quiet: bool = False, resumable: str | None = None) -> Iterator[Events]:
    """Run a command's work: yields the events with a progress display attached; turns errors into exit codes.

    Args:
        quiet: show no progress.
        resumable: the command with which an interrupted run goes on, where there is one, such as ``kdcli distill``.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    _command.resumable, _command.run = resumable, None
    with errors_as_exit_codes():
        from kdcli.cli.progress import progress_display
        from kdcli.engine.events import Events

        with progress_display(messages(), quiet or not is_first_process()) as listener:
            yield Events([_note_the_run, listener])


def _note_the_run(event: Event) -> None:
    from kdcli.engine.events import RunOpened

    if isinstance(event, RunOpened):
        _command.run = event.folder


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn an error inside the ``with`` block into one clear message and an exit code.

    0 done, 1 a gate was not met, 2 the request is wrong, 3 the run failed, 130 interrupted. ``KDCLI_DEBUG=1`` shows the
    traceback of a failure.
    """
    _command.said = False
    try:
        yield
        refuse_to_go_on()
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        say_interrupted()
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BaseException as error:
        if interrupted_by() is not None:  # what a library has made of the interruption is not worth telling
            say_interrupted()
            raise typer.Exit(EXIT_INTERRUPTED) from None
        if os.environ.get(DEBUG) and not isinstance(error, KdcliError):
            raise
        raise typer.Exit(_told(error)) from None


def say_interrupted() -> None:
    """Say in one line that a signal has ended the command; once, however often it is called.

    It is written without any package that might have to be imported, since another thread may do it in the midst of an import.
    """
    if _command.said or not is_first_process():
        return
    _command.said = True
    reopen_stderr()
    words = f"stopped  {_command.interruption()}\n"
    if interrupted_by() is None:
        sys.stderr.write(words)
        return
    with suppress(OSError):
        if os.isatty(2):  # there may be a progress bar in the line, and no cursor
            words = f"\r\x1b[2K\x1b[?25h\x1b[1;33mstopped\x1b[0m{words.removeprefix('stopped')}"
        os.write(2, words.encode("utf-8", "replace"))


def _told(error: BaseException) -> int:
    """Tell an error; its exit code."""
    if isinstance(error, RequestError):
        for problem in error.problems if is_first_process() else ():
            _say("error", str(problem), "red")
        return error.exit_code
    if isinstance(error, GateError | InterruptedRunError):
        if is_first_process():
            _say("gate" if isinstance(error, GateError) else "stopped", str(error), "yellow")
        return error.exit_code
    if isinstance(error, KdcliError):
        _say("failed", str(error), "red")
        return error.exit_code
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # rich makes SystemExit(1) of it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the reader has gone; nothing more to print
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        _say("error", f"{str(error.filename)[:100]}…: the name is too long for a file", "red")
        return EXIT_REQUEST
    elif isinstance(error, OSError | MemoryError):
        _say("failed", _plain(error), "red")
    elif isinstance(error, Exception):
        what = f"{type(error).__name__}: {error}"
        _say("failed", f"{what}\n  this is not an error that kdcli foresaw; {DEBUG}=1 shows where it arose", "red")
    else:
        raise error
    return EXIT_FAILED


def _say(kind: str, text: str, colour: str) -> None:
    from rich.markup import escape

    console = messages()
    with suppress(OSError, SystemExit):  # nobody may be reading any more; rich makes SystemExit of that
        console.print(f"[bold {colour}]{kind}[/]  {escape(text)}", soft_wrap=not console.is_terminal)


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
