"""Listeners that keep what happens: ``metrics.jsonl``, TensorBoard and other trackers."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdcli.engine.events import Evaluated, Event, Logged, PhaseDone, PhaseStarted
from kdcli.files import write_text


class MetricsFile:
    """Writes one JSON object per logged value group; a resumed phase replaces what it trains again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: Event) -> None:
        """Note an event."""
        if isinstance(event, PhaseStarted):
            self._forget_later(event.phase, event.step)
        elif isinstance(event, Logged):
            self._write(
                "train",
                event.phase,
                event.step,
                stage=event.stage,
                epoch=round(event.epoch, 4),
                values=dict(event.values),
                seconds=dict(event.seconds),
                samples=event.samples,
            )
        elif isinstance(event, Evaluated):
            scores = {name: dict(values) for name, values in event.scores.items()}
            self._write(
                "dev",
                event.phase,
                event.step,
                stage=event.stage,
                epoch=round(event.epoch, 4),
                scores=scores,
                best=event.best,
            )
        elif isinstance(event, PhaseDone):
            seconds = {name: round(value, 4) for name, value in event.seconds.items()}
            self._write(
                "done",
                event.phase,
                None,
                score=event.score if math.isfinite(event.score) else None,
                seconds=seconds,
                samples=event.samples,
            )

    def _write(self, kind: str, phase: str, step: int | None, **more: Any) -> None:
        entry = {"kind": kind, "phase": phase, "step": step, "time": round(time.time(), 3), **more}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _forget_later(self, phase: str, step: int) -> None:
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # a line that a kill cut off
                continue
            if entry["phase"] != phase or (entry["step"] is not None and entry["step"] <= step):
                kept.append(line)
        write_text(self.path, "".join(line + "\n" for line in kept))


class Trackers:
    """Passes values to the trackers that Accelerate has started."""

    def __init__(self, accelerator: Accelerator, run_name: str, settings: dict[str, Any]) -> None:
        self.accelerator = accelerator
        accelerator.init_trackers("kdcli", config=settings, init_kwargs={"wandb": {"name": run_name}})

    def __call__(self, event: Event) -> None:
        """Note an event."""
        if isinstance(event, Logged):
            self.accelerator.log({f"{event.phase}/{name}": value for name, value in event.values.items()}, event.step)
        elif isinstance(event, Evaluated):
            values = {
                f"{event.phase}/dev/{model}/{metric}": value
                for model, scores in event.scores.items()
                for metric, value in scores.items()
            }
            self.accelerator.log(values, event.step)
