"""Plugins print on stderr, whatever thread they run in, and end no process."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from zoo import PluginError
from zoo.plugin_guard import guarded_call, guarded_import, printing_to_stderr


def test_two_threads_print_with_their_own_names_and_stdout_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    stdout, both, done = sys.stdout, threading.Barrier(2), threading.Barrier(2)

    def work(name: str) -> None:
        with printing_to_stderr(name):
            both.wait()
            print(f"of {name}")  # noqa: T201 - what a plugin does
            done.wait()

    threads = [threading.Thread(target=work, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is stdout
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sorted(captured.err.splitlines()) == ["one prints: of one", "two prints: of two"]


def test_other_threads_print_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_to_stderr("plugin"):
        thread = threading.Thread(target=print, args=["mine"])
        thread.start()
        thread.join()
    assert capsys.readouterr() == ("mine\n", "")


def test_a_kept_stream_goes_on_printing_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_to_stderr("plugin"):
        kept = sys.stdout
    kept.write("later\n")
    assert capsys.readouterr() == ("", "plugin prints: later\n")


def test_a_call_that_ends_the_process_is_an_error_with_a_name() -> None:
    with pytest.raises(PluginError, match=r"^the loader: SystemExit: 3$") as caught, guarded_call("the loader"):
        sys.exit(3)
    assert caught.value.code == "plugin-exit"


def test_a_child_process_may_end_itself(capfd: pytest.CaptureFixture[str]) -> None:
    original = os._exit
    with guarded_import("plugin"):
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os._exit is original
    assert capfd.readouterr() == ("", "")
