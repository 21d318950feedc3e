"""Ctrl-C and SIGTERM: the loop is asked to stop at the next step, where its state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_signal(say: Callable[[], None]) -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request and say so; a second one ends the process as usual."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(_: int, __: FrameType | None) -> None:
        request.asked = True
        for number, handler in previous.items():
            signal.signal(number, handler)
        say()

    for number in previous:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
