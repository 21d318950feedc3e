"""``--profile``: where the time of the trainings went."""

from __future__ import annotations

from rich.console import RenderableType

from kdcli.cli.rendering import plain_table, show, title_line
from kdcli.cli.session import messages, results
from kdcli.engine.events import Event, PhaseDone
from kdcli.engine.profile import SECTIONS

_WIDE = 80


class Spent:
    """Remembers what every training cost."""

    def __init__(self) -> None:
        self.phases: list[PhaseDone] = []

    def __call__(self, event: Event) -> None:
        """Listen."""
        if isinstance(event, PhaseDone):
            self.phases.append(event)


def show_profile(spent: Spent, json_output: bool) -> None:
    """One table per training; beside a JSON document it goes to standard error."""
    console = messages() if json_output else results()
    for phase in spent.phases:
        show(console, *profile_view(phase, console.width))


def profile_view(phase: PhaseDone, width: int) -> list[RenderableType]:
    """Seconds by section of the loop, with their share and the milliseconds per sample."""
    whole = sum(phase.seconds.values())
    steps = whole - sum(phase.seconds.get(name, 0.0) for name in ("dev", "checkpoint"))
    rate = f", {phase.samples / steps:.0f} samples/s without dev and checkpoint" if steps > 0 else ""
    table = plain_table()
    table.add_column("section")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    table.add_column("ms per sample", justify="right")
    if width >= _WIDE:
        table.add_column("what", style="dim")
    for name, what in SECTIONS.items():
        seconds = phase.seconds.get(name)
        if seconds is not None:
            each = f"{1000 * seconds / phase.samples:.2f}" if phase.samples else ""
            cells = [name, f"{seconds:.2f}", f"{seconds / whole:.1%}" if whole else "", each, what]
            table.add_row(*cells[: len(table.columns)])
    return [title_line(f"{phase.phase}: {whole:.1f} s, {phase.samples} samples{rate}"), table]
