"""Signals as a wish to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from kdcli.engine.interruption import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_and_is_said_once(number: signal.Signals) -> None:
    said: list[str] = []
    with stop_on_signal(lambda: said.append("stopping")) as request:
        assert not request.asked
        signal.raise_signal(number)
        assert request.asked
    assert said == ["stopping"]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_as_usual(first: signal.Signals) -> None:
    said: list[str] = []
    with stop_on_signal(lambda: said.append("stopping")):
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert said == ["stopping"]


@pytest.mark.parametrize("signals", [0, 1])
def test_the_handlers_before_are_back_afterwards(signals: int) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signal(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not before[0]
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_handlers_before_are_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), stop_on_signal(lambda: None):
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_asked_and_nothing_is_touched() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signal(lambda: None) as request:
            seen.extend([request.asked, signal.getsignal(signal.SIGINT) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, True]
