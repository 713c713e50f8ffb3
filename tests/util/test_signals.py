"""Signals of this process: handled in order, deferred while files are written, handlers restored afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from zoo_harness.util.signals import Terminated, defer_signals, raise_on_sigterm


def test_sigterm_raises_in_the_body_and_the_former_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, raise_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(caught.value, Terminated)
    assert Terminated.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_ignored_sigterm_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raise_on_sigterm():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_arrives_after_the_body(number: signal.Signals) -> None:
    done = []

    def write_all() -> None:
        with defer_signals():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("too late")

    with raise_on_sigterm(), pytest.raises(KeyboardInterrupt):
        write_all()
    assert done == ["all of it"]


def test_a_deferred_sigterm_without_a_handler_ends_the_process() -> None:
    program = (
        "import signal\nfrom zoo_harness.util.signals import defer_signals\n"
        "with defer_signals():\n    signal.raise_signal(signal.SIGTERM)\n    print('written', flush=True)\n"
        "print('late')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "written\n")
