"""Signals of this very process: heard in order, held back while files are written, and given back afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from zoo_harness.util.signals import Terminated, defer_signals, raise_on_sigterm


def test_sigterm_raises_while_it_is_listened_to_and_the_former_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, raise_on_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(caught.value, Terminated)
    assert Terminated.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raise_on_sigterm():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_belongs_together_is_done_before_either_is_heard(number: signal.Signals) -> None:
    done = []

    def write_all() -> None:
        with defer_signals():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("too late")

    with raise_on_sigterm(), pytest.raises(KeyboardInterrupt):
        write_all()
    assert done == ["all of it"]


def test_sigterm_that_nobody_listens_to_still_ends_the_process() -> None:
    program = (
        "import signal\nfrom zoo_harness.util.signals import defer_signals\n"
        "with defer_signals():\n    signal.raise_signal(signal.SIGTERM)\n    print('written', flush=True)\n"
        "print('late')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "written\n")
