"""What reaches a terminal: text alone, and none of the characters that a terminal obeys.

Class names, file names, paths and messages of other programs may hold them. Everything that kdcli prints for people passes
through :class:`Visible`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

from kdcli.sanitizing import harmless


class Visible(RenderHook):
    """Makes a console show what it is given: ``console.push_render_hook(Visible())``."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Each of them as text that is seen."""
        return [_Seen(renderable) for renderable in renderables]


@dataclass(frozen=True)
class _Seen:
    renderable: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return self._segments(console, options)

    def _segments(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)
