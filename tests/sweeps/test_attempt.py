"""One attempt of a run: start, resume, leave alone, fail; with and without locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_harness.sweeps.attempt import attempt, is_finished, latest_attempt, progress_of
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.util.digests import sha256_of
from zoo_harness.util.file_lock import FileLock

Tiny = Callable[..., Plan]


def only(plan: Plan) -> PlannedRun:
    (run,) = plan.runs
    return run


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_is_resumed_to_the_same_weights(tiny: Tiny) -> None:
    run, whole = only(tiny()), only(tiny(seeds=[0], log_steps=1))  # another folder would have another name
    assert run.key == whole.key
    with pytest.raises(KeyboardInterrupt):
        attempt(run, "one", 1, on_epoch=interrupt)
    assert (progress_of(run.path)[0], is_finished(run), latest_attempt(run)["attempt_id"]) == (1, False, "one")

    assert attempt(run, "two", 1).status == "finished"
    resumed = sha256_of(run.path / "model.safetensors")
    run.path.rename(run.path.with_name("resumed"))
    assert attempt(run, "three", 1).status == "finished"
    assert sha256_of(run.path / "model.safetensors") == resumed
    assert attempt(run, "four", 1).status == "finished"
    assert "three" in latest_attempt(run).values()  # the fourth had nothing to do


def test_what_a_kill_left_before_there_was_a_record_is_removed(tiny: Tiny) -> None:
    run = only(tiny(epochs=0))
    run.path.mkdir(parents=True)
    (run.path / "history.jsonl").touch()
    assert attempt(run, "one", 1).status == "finished"


def test_an_error_is_written_down_and_the_run_is_tried_again(tiny: Tiny) -> None:
    run = only(tiny(input_size=40))  # which a test_vit refuses
    outcome = attempt(run, "one", 1)
    assert outcome.status == "failed"
    assert outcome.error == json.loads((run.path / "error.json").read_text())
    assert (outcome.error["code"], outcome.error["kind"]) == ("input-size-refused", "UsageError")
    assert attempt(run, "two", 1).error == outcome.error

    repaired = only(tiny(epochs=0))
    repaired.path.mkdir()
    (run.path / "error.json").rename(repaired.path / "error.json")
    assert attempt(repaired, "three", 1).status == "finished"
    assert not (repaired.path / "error.json").exists()


@pytest.mark.parametrize("lock", ["sweep", "run"])
def test_a_run_of_another_process_is_left_alone(tiny: Tiny, lock: str) -> None:
    """The lock belongs to another sweep, or to a ``zoo eval`` that a user started."""
    run = only(tiny(epochs=0))
    assert attempt(run, "one", 1).status == "finished"
    (run.path / "run.json").write_text((run.path / "run.json").read_text().replace('"finished"', '"running"'))
    held = FileLock(run.path.parent / ".sweep" / f"{run.key}.lock")
    descriptor = os.open(run.path, os.O_RDONLY)
    if lock == "sweep":
        held.acquire(exclusive=True)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert attempt(run, "two", 1).status == "locked"
    held.release()
    os.close(descriptor)
    assert attempt(run, "three", 1).status == "finished"


def test_without_locks_each_attempt_has_its_own_folder(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = only(tiny(cache="off"))
    with pytest.raises(KeyboardInterrupt):
        attempt(run, "one", 1, on_epoch=interrupt)
    own = Path(latest_attempt(run)["folder"])
    assert (own.name, run.path.exists(), progress_of(own)[0]) == (f"{run.key}-one", False, 1)

    assert attempt(run, "two", 1).status == "finished"
    record = json.loads((run.path / "run.json").read_text())
    assert record["results"]["total_seconds"] > 0
    assert len((run.path / "history.jsonl").read_text().splitlines()) == 2
    run.path.rename(run.path.parent / ".sweep" / f"{run.key}-two")  # as if it was killed before it had its name
    assert attempt(run, "three", 1).status == "finished"
    assert is_finished(run)
    first_epoch = (own / "history.jsonl").read_text().splitlines()[0]
    assert json.loads(first_epoch) == json.loads((run.path / "history.jsonl").read_text().splitlines()[0])
