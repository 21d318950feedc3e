"""What every command does around its work: listeners, errors as one clear message, exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

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

    from kdcli.engine.events import Events

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

    from kdcli.cli.visible import Visible

    console = Console(highlight=False, **settings)  # type: ignore[arg-type]
    console.push_render_hook(Visible())
    return console


def print_document(text: str) -> None:
    """Print one JSON document to standard output."""
    if is_first_process():
        typer.echo(text)


@contextmanager
def session(quiet: bool = False) -> Iterator[Events]:
    """Run a command's work: yields the events with a progress display attached; turns errors into exit codes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with errors_as_exit_codes():
        from kdcli.cli.progress import progress_display
        from kdcli.engine.events import Events

        with progress_display(messages(), quiet or not is_first_process()) as listener:
            yield Events([listener])


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn an error inside the ``with`` block into one clear message and an exit code.

    0 done, 1 a gate was not met, 2 the request is wrong, 3 the run failed, 130 interrupted. ``KDCLI_DEBUG=1`` shows the
    traceback of a failure.
    """
    try:
        yield
    except RequestError as error:
        for problem in error.problems if is_first_process() else ():
            _say("error", str(problem), "red")
        _exit(error)
    except (GateError, InterruptedRunError) as error:
        if is_first_process():
            _say("gate" if isinstance(error, GateError) else "stopped", str(error), "yellow")
        _exit(error)
    except KdcliError as error:
        _say("failed", str(error), "red")
        _exit(error)
    except KeyboardInterrupt:
        _say("stopped", "interrupted; a run that had begun goes on with --resume", "yellow")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - the reader has gone; nothing more to print
        raise typer.Exit(EXIT_FAILED) from None
    except (OSError, MemoryError) as error:
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _say(
                "error",
                f"{str(error.filename)[:100]}…: the name is too long for a file",
                "red",
            )
            raise typer.Exit(EXIT_REQUEST) from None
        _say("failed", _plain(error), "red")
        raise typer.Exit(EXIT_FAILED) from None
    except typer.Exit:
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        _say(
            "failed",
            f"{type(error).__name__}: {error}\n  this is not an error that kdcli foresaw; {DEBUG}=1 shows where it arose",
            "red",
        )
        raise typer.Exit(EXIT_FAILED) from None


def _say(kind: str, text: str, colour: str) -> None:
    from rich.markup import escape

    console = messages()
    console.print(f"[bold {colour}]{kind}[/]  {escape(text)}", soft_wrap=not console.is_terminal)


def _exit(error: KdcliError) -> None:
    raise typer.Exit(error.exit_code) from None


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return f"{type(error).__name__}: {error}"
