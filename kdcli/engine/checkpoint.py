"""The state from which a phase goes on as if it had never stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli.atomic_files import damage, recovered, sums_of, whole_folder, write_json
from kdcli.errors import RunFailedError

_STATE, _BEST = "state.pt", "best.pt"


@dataclass
class Position:
    """How far a phase has come.

    Attributes:
        stage: index of the stage.
        step: steps taken in that stage.
        best_score: the dev score of the weights that are kept, or None.
        best_step: the step of the phase at which they were.
        top_score: the highest dev score so far, or None.
        stale: evaluations since that.
        window, window_steps: sums of the parts of all terms over the steps since a stage's rule for moving on was last looked
            at, and the number of those steps.
        over: the stage has ended before its steps were over.
    """

    stage: int = 0
    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    top_score: float | None = None
    stale: int = 0
    window: list[float] = field(default_factory=list)
    window_steps: int = 0
    over: bool = False

    def begin_stage(self, row: int) -> None:
        """Go to the beginning of a stage."""
        self.stage, self.step, self.over = row, 0, False
        self.window, self.window_steps = [], 0


@dataclass
class State:
    """All that a checkpoint holds.

    Attributes:
        objective: weights of learner and projections (those of all stages).
        optimizer: AdamW's moments.
        scaler: the loss scaler's state (fp16), or None.
        random: random-number state of every process.
    """

    position: Position
    objective: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    random: list[dict[str, Any]]


def save(folder: Path, state: State, best: Mapping[str, Tensor] | None = None) -> None:
    """Write a checkpoint as a whole; the one before stays until this one is complete.

    Args:
        folder: where it is.
        state: all that the next step follows from.
        best: weights of the learner at its best evaluation; None leaves those that the checkpoint before has, if any.
    """
    known = {_BEST: sums_of(folder).get(_BEST, "")} if best is None else {}
    with whole_folder(folder, sealed=True, known=known) as partial:
        if best is not None:
            torch.save(dict(best), partial / _BEST)
        elif (folder / _BEST).is_file():
            _linked(folder / _BEST, partial / _BEST)
        content = {
            "position": asdict(state.position),
            "objective": state.objective,
            "optimizer": state.optimizer,
            "scaler": state.scaler,
            "random": state.random,
        }
        torch.save(content, partial / _STATE)
        write_json(partial / "position.json", asdict(state.position))


def load(folder: Path) -> State | None:
    """The checkpoint in a folder, or None where there is none.

    Raises:
        RunFailedError: there is one, and it is not what was written, or cannot be read.
    """
    if recovered(folder).is_dir():
        _refuse_damaged(folder)
    content = _read(folder / _STATE)
    return None if content is None else State(Position(**content.pop("position")), **content)


def best_weights(folder: Path) -> dict[str, Tensor] | None:
    """The learner's weights at its best evaluation, as views of the file; None if there was no evaluation yet.

    Raises:
        RunFailedError: there is a file, and it is not what was written, or cannot be read.
    """
    if (recovered(folder) / _BEST).is_file():
        _refuse_damaged(folder)
    return _read(recovered(folder) / _BEST, mmap=True)


def _read(path: Path, mmap: bool = False) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises many types for a broken file
        raise _broken(path.parent, f"{path.name}: {error}") from error
    return content


def _refuse_damaged(folder: Path) -> None:
    why = damage(folder)
    if why:
        raise _broken(folder, why)


def _broken(folder: Path, why: str) -> RunFailedError:
    return RunFailedError(f"{folder / why}: the checkpoint is broken; remove {folder} to start the phase again with --resume")


def _linked(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
