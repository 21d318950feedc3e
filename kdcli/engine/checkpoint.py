"""The state from which a phase goes on as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdcli.errors import RunFailedError
from kdcli.files import recovered, whole_folder, write_json

_STATE = "state.pt"


@dataclass
class Position:
    """How far a phase has come.

    Attributes:
        stage: index of the stage.
        step: steps taken in that stage.
        best_score: the best dev score so far, or None.
        best_step: the step of the phase at which it was reached.
        stale: evaluations since then.
        window, window_steps: sums of the parts of all terms over the steps since a stage's rule for moving on was last looked
            at, and the number of those steps.
        over: the stage has ended before its steps were over.
    """

    stage: int = 0
    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    window: list[float] = field(default_factory=list)
    window_steps: int = 0
    over: bool = False


@dataclass
class State:
    """All that a checkpoint holds.

    Attributes:
        objective: weights of learner and projections (those of all stages).
        optimizer: AdamW's moments.
        scaler: the loss scaler's state (fp16), or None.
        random: random-number state of every process.
        best: weights of the learner at its best evaluation, or None.
    """

    position: Position
    objective: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    random: list[dict[str, Any]]
    best: dict[str, Tensor] | None


def save(folder: Path, state: State) -> None:
    """Write a checkpoint as a whole; the one before stays until this one is complete."""
    with whole_folder(folder) as partial:
        content = {
            "position": asdict(state.position),
            "objective": state.objective,
            "optimizer": state.optimizer,
            "scaler": state.scaler,
            "random": state.random,
            "best": state.best,
        }
        torch.save(content, partial / _STATE)
        write_json(partial / "position.json", asdict(state.position))


def load(folder: Path) -> State | None:
    """The checkpoint in a folder, or None where there is none.

    Raises:
        RunFailedError: there is one, and it cannot be read.
    """
    path = recovered(folder) / _STATE
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a broken file
        raise RunFailedError(f"{path}: the checkpoint is broken ({error}); remove {folder} to start the phase again") from error
    return State(Position(**content.pop("position")), **content)
