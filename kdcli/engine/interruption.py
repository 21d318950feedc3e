"""Ctrl-C, SIGTERM and a closed terminal: a loop that can save its state is asked to stop, everything else ends at once.

:func:`handle_signals` makes that so for the whole process. The first signal raises KeyboardInterrupt in the main thread, so
that every ``finally`` cleans up behind itself. Libraries may catch that, or hold the main thread in C for long, where no
handler of Python can run. Therefore the fact is noted (:func:`interrupted_by`, :func:`refuse_to_go_on`), standard error is
closed to what they have to say of it, and a thread of its own ends the process if it has not ended within :data:`GRACE`.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from kdcli.atomic_files import remove_unfinished
from kdcli.errors import EXIT_INTERRUPTED

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
GRACE = 3.0
_PASSED_ON = 1.0
_REAPING = 0.5
_START, _CANCEL = 0, 255  # what the handlers tell the watching thread; no signal has these numbers


@dataclass
class StopRequest:
    """Whether somebody asked the run to stop.

    Attributes:
        asked: by a signal.
        seen: the first signal, and when it came; by the thread that watches, which may see it before the handler does.
    """

    asked: bool = False
    seen: tuple[int, float] | None = None


@dataclass
class _State:
    """The one state of this process.

    Attributes:
        request: a loop that wants to be asked, if one is running.
        by: the signal that interrupts everything, once there was one.
        last_words: writes the one line that a process says when it is ended by force.
        told: where handlers tell the watching thread; None while signals are not handled.
        stderr: a copy of standard error while it is closed to others.
    """

    request: StopRequest | None = None
    by: int | None = None
    last_words: Callable[[], None] = lambda: None
    told: int | None = None
    stderr: int | None = None
    ending: threading.Lock = field(default_factory=threading.Lock)


_state = _State()


@contextmanager
def stop_on_signal(say: Callable[[], None]) -> Iterator[StopRequest]:
    """Turn the first signal into a request and say so; a second one ends the process as usual."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS if not _is_ignored(number)}

    def note(number: int, _: FrameType | None) -> None:
        request.asked = True
        request.seen = request.seen or (number, time.monotonic())
        for one, handler in previous.items():
            signal.signal(one, handler)
        _tell(_CANCEL)
        _hang_up(number)
        with suppress(OSError):
            say()

    outer, _state.request = _state.request, request
    for number in previous:
        signal.signal(number, note)
    try:
        yield request
    finally:
        _state.request = outer
        for number, handler in previous.items():
            signal.signal(number, handler)


def handle_signals(last_words: Callable[[], None]) -> None:
    """Have this process end within seconds on a signal, with exit code 130, whatever it is doing.

    Args:
        last_words: called by another thread than the main one if the process has to be ended by force.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _state.last_words, _state.told = last_words, writing
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        if not _is_ignored(number):
            signal.signal(number, _interrupt)
    threading.Thread(target=_watch, args=(reading,), name="kdcli-signals", daemon=True).start()
    os.register_at_fork(after_in_child=_leave_signals_alone)
    atexit.register(_ignore_signals)  # the first to be registered, so the last to be called


def interrupted_by() -> str | None:
    """``Ctrl-C``, ``SIGTERM`` or ``SIGHUP`` once a signal has interrupted this process, even if the error was swallowed."""
    if _state.by is None:
        return None
    return "Ctrl-C" if _state.by == signal.SIGINT else signal.Signals(_state.by).name


def refuse_to_go_on() -> None:
    """Interrupt once more if the process was interrupted and a library has swallowed that.

    Raises:
        KeyboardInterrupt: a signal has come.
    """
    if _state.by is not None and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def reopen_stderr() -> None:
    """Open standard error again, for the one line about the interruption."""
    if _state.stderr is not None:
        with suppress(OSError):
            os.dup2(_state.stderr, 2)


def end_interrupted() -> NoReturn:
    """End the process with exit code 130: no library has its say at exit, and what it had begun to write is removed."""
    _state.ending.acquire()  # never released: one thread ends the process
    _end_children()
    with suppress(OSError):
        remove_unfinished()
    os._exit(EXIT_INTERRUPTED)


def end_quietly_on_signals() -> None:
    """From now on, when all is done and said, a signal ends the process without a word."""
    for number in SIGNALS:
        if not _is_ignored(number):
            signal.signal(number, lambda *_: os._exit(EXIT_INTERRUPTED))


def _ignore_signals() -> None:
    """All is done, and the interpreter is taken down; a signal would only change the exit code of what is finished."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _is_ignored(number: int) -> bool:
    """Whether signals of this kind are to be ignored, as nohup has it; Ctrl-C is heard even by what a script starts with &."""
    return number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN


def _interrupt(number: int, _: FrameType | None) -> None:
    """The handler of all signals: interrupts the main thread, once."""
    request = _state.request
    if _state.by is not None or (request is not None and _passed_on(request.seen, number)):
        return
    _state.by = number
    _tell(_START)
    _hang_up(number)
    _close_stderr()
    raise KeyboardInterrupt


def _passed_on(first: tuple[int, float] | None, number: int) -> bool:
    """Whether a signal is the one before once more: a launcher passes on what the terminal has sent to all, or as SIGTERM."""
    if first is None or time.monotonic() - first[1] > _PASSED_ON:
        return False
    return "LOCAL_RANK" in os.environ or number not in (signal.SIGINT, first[0])


def _tell(byte: int) -> None:
    if _state.told is not None:
        with suppress(OSError):
            os.write(_state.told, bytes([byte]))


def _watch(reading: int) -> None:
    """End the process by force when it takes too long, or at the second signal."""
    deadline: float | None = None
    first: tuple[int, float] | None = None
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not select.select([reading], [], [], left)[0]:
            _end_by_force(first)
        for byte in os.read(reading, 64):
            request, now = _state.request, time.monotonic()
            if byte == _CANCEL:
                deadline = None
            elif byte == _START:
                deadline = deadline or now + GRACE
            elif byte in SIGNALS:
                if request is not None and request.seen is None:
                    request.seen = (byte, now)
                elif _passed_on(first, byte) or (request is not None and _passed_on(request.seen, byte)):
                    pass
                elif first is not None and deadline is not None:
                    _end_by_force(first)
                else:
                    first, deadline = (byte, now), now + GRACE


def _end_by_force(first: tuple[int, float] | None) -> NoReturn:
    if _state.by is None and first is not None:
        _state.by = first[0]
    _close_stderr()
    reopen_stderr()
    with suppress(Exception):  # whatever is wrong with the words, the process has to end
        _state.last_words()
    end_interrupted()


def _close_stderr() -> None:
    """Lead standard error to nowhere; what libraries say while they are interrupted helps nobody."""
    if _state.stderr is None and not os.environ.get("KDCLI_DEBUG"):
        with suppress(OSError):
            copied = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
            _state.stderr = copied


def _hang_up(number: int) -> None:
    """When the terminal is closed, nothing can be written to it any more: lead what would be to nowhere."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _end_children() -> None:
    """End the processes that this one has started, where the system says which they are."""
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            for process in listed.read_text(encoding="ascii").split():
                with suppress(OSError):
                    os.kill(int(process), signal.SIGKILL)
    deadline = time.monotonic() + _REAPING
    with suppress(OSError):  # until there is none left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)


def _leave_signals_alone() -> None:
    """In a forked child: its signals are its own, and not told to its parent's thread."""
    _state.request, _state.told = None, None
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
