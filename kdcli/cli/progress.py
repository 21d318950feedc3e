"""Progress on standard error: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from kdcli.engine.events import (
    Evaluated,
    Event,
    Finished,
    Note,
    PhaseDone,
    PhaseStarted,
    StepDone,
    WorkStarted,
)

_PLAIN_SECONDS = 15.0
Listener = Callable[[Event], None]


@contextmanager
def progress_display(console: Console, quiet: bool) -> Iterator[Listener]:
    """A listener for the console at hand; what it drew is finished when the block ends."""
    if quiet:
        yield _warnings_only(console)
    elif console.is_terminal:
        with _bars(console) as progress:
            yield BarDisplay(console, progress)
    else:
        yield LineDisplay(console)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        console=console,
        transient=True,
        refresh_per_second=8,
        expand=True,
    )


def _warnings_only(console: Console) -> Listener:
    def listen(event: Event) -> None:
        if isinstance(event, Note) and event.warning:
            _print_note(console, event)

    return listen


class Pace:
    """How fast a phase goes, and what is left of it."""

    def __init__(self, step: int, steps: int) -> None:
        self.first, self.step, self.steps = step, step, steps
        self.samples = 0
        self.begin = time.monotonic()

    def advance(self, step: int, samples: int) -> None:
        """Count one step."""
        self.step = step
        self.samples += samples

    @property
    def status(self) -> str:
        """``120/770 · 96 samples/s · 1:52 left``."""
        seconds = max(time.monotonic() - self.begin, 1e-6)
        done = self.step - self.first
        left = (self.steps - self.step) * seconds / done if done else 0.0
        return f"{self.step}/{self.steps} · {self.samples / seconds:.0f} samples/s · {clock(left)} left"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class BarDisplay:
    """A bar for the phase at work; what is worth keeping is printed above it."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console, self.progress = console, progress
        self.task: TaskID | None = None
        self.pace = Pace(0, 0)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Note):
            _print_note(self.console, event)
        elif isinstance(event, WorkStarted):
            self._replace(escape(event.title) + " …", None, 0, "")
        elif isinstance(event, PhaseStarted):
            self.pace = Pace(event.step, event.steps)
            self._replace(escape(event.title), event.steps, event.step, "")
        elif isinstance(event, StepDone):
            self.pace.advance(event.step, event.samples)
            assert self.task is not None
            self.progress.update(self.task, completed=event.step, status=self.pace.status)
        elif isinstance(event, Evaluated):
            self.console.print(f"  {_scores(event)}")
        elif isinstance(event, PhaseDone):
            self._replace("", None, 0, "")
        elif isinstance(event, Finished):
            self._replace("", None, 0, "")
            self.progress.stop()

    def _replace(self, description: str, total: int | None, completed: int, status: str) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        if description:
            self.console.print(f"[bold]{description}[/]")
            name = description if len(description) <= 24 and self.console.width >= 80 else ""
            self.task = self.progress.add_task(name, total=total, completed=completed, status=status)


class LineDisplay:
    """Plain lines, none of them more often than every few seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace = Pace(0, 0)
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Note):
            _print_note(self.console, event)
        elif isinstance(event, WorkStarted):
            self._line(f"{event.title} …")
        elif isinstance(event, PhaseStarted):
            self.pace = Pace(event.step, event.steps)
            self._line(event.title)
        elif isinstance(event, StepDone):
            self.pace.advance(event.step, event.samples)
            if time.monotonic() - self.last > _PLAIN_SECONDS:
                self._line(f"  {self.pace.status}")
        elif isinstance(event, Evaluated):
            self._line(f"  {_scores(event)}")

    def _line(self, text: str) -> None:
        self.last = time.monotonic()
        self.console.print(escape(text), soft_wrap=True)


def _print_note(console: Console, note: Note) -> None:
    mark = "[yellow]warning[/]  " if note.warning else ""
    console.print(mark + escape(note.text), soft_wrap=not console.is_terminal)


def _scores(event: Evaluated) -> str:
    values = ", ".join(f"{name} {scores[event.metric]:.4f}" for name, scores in event.scores.items())
    return f"epoch {event.epoch:.3g}: dev {event.metric} {values}" + ("  (best so far)" if event.best else "")
