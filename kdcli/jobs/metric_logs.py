"""Listeners that keep what happens: ``metrics.jsonl``, TensorBoard and other trackers."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from kdcli.atomic_files import write_text
from kdcli.engine.events import Evaluated, Event, Logged, PhaseDone, PhaseStarted


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
        kept = [
            entry
            for entry in read_metrics(self.path)
            if entry["phase"] != phase or (entry["step"] is not None and entry["step"] <= step)
        ]
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl`` that can be read; those that a kill cut off or a disk damaged are left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and _is_entry(entry):
            found.append(entry)
    return found


def _is_entry(entry: dict[str, Any]) -> bool:
    """Whether a line has what every line of its kind has."""
    if not isinstance(entry.get("phase"), str):
        return False
    if entry.get("kind") == "done":
        return entry.get("step") is None
    if entry.get("kind") == "train":
        groups = [entry.get("values")]
    elif entry.get("kind") == "dev" and isinstance(entry.get("scores"), dict):
        groups = list(entry["scores"].values())
    else:
        return False
    return isinstance(entry.get("step"), int) and all(map(_are_figures, groups))


def _are_figures(group: object) -> bool:
    return isinstance(group, dict) and all(value is None or isinstance(value, int | float) for value in group.values())


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
