"""The few error types of kdcli: what was expected, what was found, and what to do.

Every error that a user can cause is a :class:`KdcliError`. Its class decides the exit code; the command line prints its
text without a traceback. Anything else that escapes is a bug of kdcli, or a failure of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

EXIT_GATE = 1
EXIT_REQUEST = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        where: the flag, file or ``file:line  key.path`` that is to blame.
        what: one sentence that says what is wrong.
        expected: what would have been right, if that can be said.
        found: what stands there instead.
        remedy: something that the user can type or write to mend it.
    """

    where: str
    what: str
    expected: str = ""
    found: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        for label, text in (("expected", self.expected), ("found", self.found), ("try", self.remedy)):
            if text:
                lines.append(f"  {label:<9} {text}")
        return "\n".join(lines)


class KdcliError(Exception):
    """The root of every error that kdcli raises on purpose."""

    exit_code = EXIT_FAILED


class RequestError(KdcliError):
    """The request cannot be carried out as it stands, and the user can mend it (exit code 2)."""

    exit_code = EXIT_REQUEST

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RunTakenError(RequestError):
    """Another process is at work in the run; it is free again when that has ended."""


class GateError(KdcliError):
    """The work was done, and a gate that the user asked for was not met (exit code 1)."""

    exit_code = EXIT_GATE


class RunFailedError(KdcliError):
    """The run failed for a reason that lies neither in the request nor in a gate (exit code 3)."""

    exit_code = EXIT_FAILED


class InterruptedRunError(KdcliError):
    """The run was stopped by a signal, and its state was saved (exit code 130)."""

    exit_code = EXIT_INTERRUPTED


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word that is nearest to ``word`` as a question, or an empty string.

    >>> did_you_mean("objectve", ["objective", "epochs"])
    "did you mean 'objective'?"
    """
    from difflib import get_close_matches

    near = get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


class Problems:
    """Collects problems so that all of them are reported at once; ``noted`` counts those that were found again as well.

    >>> problems = Problems()
    >>> problems.add("--seed", "is not a number")
    >>> len(problems)
    1
    """

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self.noted = 0

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def add(self, where: str, what: str, *, expected: str = "", found: str = "", remedy: str = "") -> None:
        """Note one problem (see :class:`Problem` for the fields); the same one only once."""
        self._note(Problem(where, what, expected, found, remedy))

    def extend(self, error: RequestError) -> None:
        """Take over the problems of an error that was caught."""
        for problem in error.problems:
            self._note(problem)

    def _note(self, problem: Problem) -> None:
        self.noted += 1
        if problem not in self._found:
            self._found.append(problem)

    def raise_if_any(self) -> None:
        """Raise one :class:`RequestError` with everything noted so far, if there is anything."""
        if self._found:
            raise RequestError(self._found)
