"""What happens in a run, told to whoever listens: the terminal, ``metrics.jsonl``, trackers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kdcli.engine.interruption import refuse_to_go_on


@dataclass(frozen=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True)
class Note(Event):
    """A sentence that the user should read."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class WorkStarted(Event):
    """Work without steps of training has begun: reading, tokenising, scoring."""

    title: str


@dataclass(frozen=True)
class RunOpened(Event):
    """The run's folder has its plan: from now on the run can be resumed."""

    folder: str


@dataclass(frozen=True)
class PhaseStarted(Event):
    """A model begins to be trained, at ``step`` of ``steps`` (not 0 when it is resumed)."""

    phase: str
    title: str
    step: int
    steps: int


@dataclass(frozen=True)
class StepDone(Event):
    """An optimiser step was taken over ``samples`` samples."""

    phase: str
    stage: str
    step: int
    steps: int
    samples: int


@dataclass(frozen=True)
class Logged(Event):
    """Means over the steps since the last such event: loss terms, learning rate, gradient norm and what terms observed.

    ``seconds`` are those since the last such event by section of the loop (``kdcli.engine.profile``), for ``samples`` samples.
    """

    phase: str
    stage: str
    step: int
    epoch: float
    values: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    samples: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Evaluated(Event):
    """The dev split was scored: model → metric → value."""

    phase: str
    stage: str
    step: int
    epoch: float
    scores: Mapping[str, Mapping[str, float]]
    metric: str
    best: bool


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """The state from which the phase can be resumed is on disk."""

    phase: str
    step: int


@dataclass(frozen=True)
class PhaseDone(Event):
    """The model is trained; the weights of its best evaluation are in place.

    ``seconds`` are those that this process has spent on it, by section of the loop, for ``samples`` samples.
    """

    phase: str
    score: float
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    samples: int = field(default=0, compare=False)


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Finished(Event):
    """All work is done; what follows are results."""


class Events:
    """Hands each event to every listener, in order."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Let one more listen."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Tell everybody.

        Raises:
            KeyboardInterrupt: a signal has come that some library has swallowed.
        """
        refuse_to_go_on()
        for listener in self._listeners:
            listener(event)

    def emit_finished(self) -> None:
        """Tell everybody that the work is done."""
        self.emit(Finished())

    def emit_note(self, text: str) -> None:
        """Tell everybody a sentence."""
        self.emit(Note(text))
