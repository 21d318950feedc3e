"""Where the time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

SECTIONS = {
    "data": "waiting for batches and kept answers",
    "teachers": "teachers answering",
    "cache": "keeping their answers",
    "student": "the learner's forward pass",
    "losses": "the loss terms",
    "backward": "backward pass",
    "optimiser": "clipping, optimiser step",
    "dev": "scoring the dev split",
    "checkpoint": "checkpoints",
    "other": "everything else",
}


class Profile:
    """Seconds by section of the loop (:data:`SECTIONS`); a section inside another one is taken out of it.

    On a GPU the sections are marked by events in its stream, which costs nothing and makes nobody wait; a section there is the
    time until the GPU has got through it.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._cuda = device is not None and device.type == "cuda"
        self._open: list[str] = []
        self._marks: list[tuple[str, Any, Any]] = []
        self._since: Any = None
        self._taken: dict[str, float] = {}

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Charge the time inside the ``with`` block to a section."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Seconds by section since the last call (on a GPU this waits for it)."""
        self._turn()
        if self._cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for name, begin, end in self._marks:
            spent = begin.elapsed_time(end) / 1000 if self._cuda else end - begin
            seconds[name] = seconds.get(name, 0.0) + spent
        self._marks.clear()
        return {name: seconds[name] for name in SECTIONS if name in seconds}

    def _turn(self) -> None:
        now = self._now()
        if self._open:
            self._marks.append((self._open[-1], self._since, now))
        self._since = now

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
