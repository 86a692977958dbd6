"""Signals are recorded for the run, abort work that can be repeated, and a second Ctrl-C stops at once."""

import signal

import pytest

from sorl.system.signals import SIGNALS, Interrupted, Interruption


def test_a_closed_terminal_asks_a_run_to_stop():
    assert signal.SIGHUP in SIGNALS


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert interruption.signal is None
        signal.raise_signal(number)
        assert interruption.signal == number
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_after_any_signal_is_obeyed(first):
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert interruption.signal is None
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_signal_of_another_kind_changes_nothing():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGUSR1


def test_work_that_can_be_done_again_is_abandoned_at_once():
    reached = []
    with Interruption() as interruption:
        with pytest.raises(Interrupted), interruption.at_once():
            reached.append("begun")
            try:
                signal.raise_signal(signal.SIGTERM)
            except Exception:  # as a library might
                reached.append("swallowed")
            reached.append("went on")
        assert reached == ["begun"]
        with pytest.raises(Interrupted), interruption.at_once():
            reached.append("begun again")
    assert reached == ["begun"]
