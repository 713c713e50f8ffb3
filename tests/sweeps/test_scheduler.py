"""The scheduler: order, losses, dependencies, and runs of other processes, with real runs in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest

from zoo_harness.sweeps import scheduler as scheduling
from zoo_harness.sweeps.attempt import Outcome, attempt, is_finished, progress_of
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.estimates import estimate_runs
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.sweeps.pools import ThisProcess
from zoo_harness.sweeps.scheduler import Scheduler
from zoo_harness.util.file_lock import FileLock

Tiny = Callable[..., Plan]


class Lossy(ThisProcess):
    """This process as a worker that is lost again and again, each time after ``epochs`` more epochs."""

    def __init__(self, losses: int, epochs: int) -> None:
        super().__init__(1)
        self.losses, self.epochs, self.submitted = losses, epochs, list[str]()

    def submit(self, run: PlannedRun, attempt_id: str, node: str) -> Future[Outcome]:
        self.submitted.append(run.key)
        if self.losses:
            self.losses -= 1
            lost: Future[Outcome] = Future()
            lost.set_exception(ChildProcessError("killed"))
            if self.epochs:
                with pytest.raises(KeyboardInterrupt):
                    attempt(run, attempt_id, 1, on_epoch=self._interrupt)
            return lost
        return super().submit(run, attempt_id, node)

    def _interrupt(self) -> None:
        raise KeyboardInterrupt


def conducted(plan: Plan, pool: ThisProcess, timeout: float | None = None) -> Scheduler:
    found = Scheduler(plan, estimate_runs(plan), pool, SweepDisplay(shown=False), timeout)
    found.run()
    return found


@pytest.mark.parametrize(
    ("losses", "epochs", "status"), [(2, 0, "finished"), (3, 0, "failed"), (3, 1, "finished")], ids=str
)
def test_a_lost_run_starts_again_while_it_advances(tiny: Tiny, losses: int, epochs: int, status: str) -> None:
    plan, pool = tiny(epochs=4 if epochs else 0), Lossy(losses, epochs)
    (outcome,) = conducted(plan, pool).outcomes.values()
    assert outcome.status == status
    assert len(pool.submitted) == (3 if status == "failed" else losses + 1)
    if status == "failed":
        assert outcome.error is not None
        assert (outcome.error["code"], "killed" in outcome.error["message"]) == ("worker-lost", True)


def test_layers_of_a_run_are_scored_after_it(tiny: Tiny) -> None:
    layers = {"command": "layers", "of": "trained", "last": True, "split": "test"}
    plan = tiny(runs={"trained": {"epochs": 1}, "si": layers})
    run, scored = plan.runs
    assert {key: each.status for key, each in conducted(plan, ThisProcess(1)).outcomes.items()} == {
        run.key: "finished",
        scored.key: "finished",
    }
    assert is_finished(scored)
    assert list(scored.path.iterdir()) == [scored.path / "layers.json"]


def test_layers_of_a_run_that_failed_fail_too(tiny: Tiny) -> None:
    runs = {"bad": {"input_size": 40}, "si": {"command": "layers", "of": "bad"}}
    failed = [each.error for each in conducted(tiny(runs=runs), ThisProcess(1)).outcomes.values()]
    assert [error and error["code"] for error in failed] == ["input-size-refused", "needs-run"]


def test_runs_of_another_process_are_looked_at_again_at_the_end(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_LOCKED_SECONDS", 0.1)
    plan = tiny(seeds=[0, 1], epochs=0)
    first, second = plan.runs
    other = FileLock(first.path.parent / ".sweep" / f"{first.key}.lock")
    other.path.parent.mkdir(parents=True)
    other.acquire(exclusive=True)

    class Releasing(SweepDisplay):
        def update(self, lines: Any) -> None:
            if lines[0].startswith("waiting for 1 runs of other processes"):
                ends.append([is_finished(first), is_finished(second)])
                other.release()

    ends: list[list[bool]] = []
    found = Scheduler(plan, estimate_runs(plan), ThisProcess(1), Releasing(shown=False), None)
    found.run()
    assert ends[0] == [False, True]
    assert [each.status for each in found.outcomes.values()] == ["finished"] * 2


def test_the_first_run_computes_the_frozen_part_before_the_others_start(tiny: Tiny) -> None:
    class Slots(ThisProcess):
        """Two slots whose runs end when the test says so."""

        slots = 2

        def __init__(self) -> None:
            super().__init__(1)
            self.submitted: list[tuple[PlannedRun, Future[Outcome]]] = []

        def submit(self, run: PlannedRun, *_where: str) -> Future[Outcome]:
            self.submitted.append((run, Future()))
            return self.submitted[-1][1]

    plan, pool = tiny(learning_rate=[0.1, 0.01, 0.001], backbones=["timm:test_vit", "timm:test_resnet"]), Slots()
    found = Scheduler(plan, estimate_runs(plan), pool, SweepDisplay(shown=False), None)
    assert len({run.group for run in plan.runs}) == 2

    def end(number: int) -> None:
        pool.submitted[number][1].set_result(Outcome("finished"))

    def end_all() -> None:
        for number in (1, 2, 3, 0, 4, 5):
            while len(pool.submitted) <= number:
                pass
            end(number)

    thread = threading.Thread(target=end_all)
    thread.start()
    found.run()
    thread.join()
    names = [run.backbone for run, _future in pool.submitted]
    assert names[:2] == ["timm:test_vit", "timm:test_resnet"]  # one of each group
    assert names[2:4] == ["timm:test_resnet"] * 2  # while the first of the other group runs
    assert len(found.outcomes) == 6


def test_a_run_that_hangs_is_cancelled_and_starts_again(tiny: Tiny) -> None:
    class Hanging(Lossy):
        cancelled: ClassVar[list[str]] = []

        def submit(self, run: PlannedRun, attempt_id: str, node: str) -> Future[Outcome]:
            if self.losses:
                super().submit(run, attempt_id, node)
                return Future()  # it never ends
            return super().submit(run, attempt_id, node)

        def cancel(self, attempt_id: str) -> None:
            self.cancelled.append(attempt_id)

    plan, pool = tiny(), Hanging(1, 1)
    found = conducted(plan, pool, timeout=0.2)
    (run,) = plan.runs
    assert (len(pool.cancelled), found.outcomes[run.key].status, progress_of(run.path)[0]) == (1, "finished", 2)
