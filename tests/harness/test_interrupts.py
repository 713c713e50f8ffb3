"""Signals of this very process: heard in order, held back while files are written, and given back afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from zoo_harness.interrupts import Terminated, held_back, terminable


def test_sigterm_raises_while_it_is_listened_to_and_the_former_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(caught.value, Terminated)
    assert Terminated.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_belongs_together_is_done_before_either_is_heard(number: signal.Signals) -> None:
    done = []

    def write_all() -> None:
        with held_back():
            signal.raise_signal(number)
            done.append("all of it")
        done.append("too late")

    with terminable(), pytest.raises(KeyboardInterrupt):
        write_all()
    assert done == ["all of it"]


def test_sigterm_that_nobody_listens_to_still_ends_the_process() -> None:
    program = (
        "import signal\nfrom zoo_harness.interrupts import held_back\n"
        "with held_back():\n    signal.raise_signal(signal.SIGTERM)\n    print('written', flush=True)\nprint('late')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "written\n")
