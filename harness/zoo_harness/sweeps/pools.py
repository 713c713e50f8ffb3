"""Pools that execute the runs of a sweep: this process, local worker processes, or a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import queue
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.sweeps.attempt import Outcome, attempt
from zoo_harness.sweeps.plan import PlannedRun

_GRACE_SECONDS = 60.0  # the time that an interrupted run has to write its files


class ThisProcess:
    """Executes one run at a time in this process; the base class of the other pools.

    ``slots`` is the largest number of runs that may be submitted at a time. The pool may call ``on_epoch`` after each
    epoch.
    """

    slots = 1
    on_epoch: Callable[[], None]

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def submit(self, run: PlannedRun, attempt_id: str, node: str) -> Future[Outcome]:
        """Start an attempt; the future raises an exception if the worker of the attempt is lost.

        A pool of several machines prefers ``node``, if the node is free.
        """
        del node
        future: Future[Outcome] = Future()
        future.set_result(attempt(run, attempt_id, self._threads, on_epoch=self.on_epoch))
        return future

    def cancel(self, attempt_id: str) -> None:
        """Kill the worker of an attempt that makes no progress."""

    def close(self) -> None:
        """Interrupt all attempts, so that their runs can be resumed."""


class LocalWorkers(ThisProcess):
    """Worker processes on this machine, each with one run at a time; a killed worker is replaced."""

    def __init__(self, count: int, threads: int, logs: Path) -> None:
        super().__init__(threads)
        self.slots, self._logs = count, logs
        self._executor = ThreadPoolExecutor(count)  # each thread waits for the answer of one worker
        self._workers: dict[int, subprocess.Popen[str]] = {}
        self._working: dict[str, subprocess.Popen[str]] = {}
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(count):
            self._idle.put(number)
        logs.mkdir(parents=True, exist_ok=True)

    def submit(self, run: PlannedRun, attempt_id: str, node: str) -> Future[Outcome]:
        """Send the run to an idle worker."""
        del node
        request = {"run": asdict(run), "attempt_id": attempt_id, "threads": self._threads}
        return self._executor.submit(self._request, attempt_id, json.dumps(request) + "\n")

    def _request(self, attempt_id: str, request: str) -> Outcome:
        number = self._idle.get()
        worker = self._workers.get(number)
        if worker is None or worker.poll() is not None:
            worker = self._workers[number] = self._start(number)
        self._working[attempt_id] = worker
        try:
            assert worker.stdin is not None is not worker.stdout  # noqa: S101 - both are pipes
            with suppress(BrokenPipeError):
                worker.stdin.write(request)
                worker.stdin.flush()
            answer = worker.stdout.readline()
            if not answer:
                raise ChildProcessError(f"worker {number} ended with status {worker.wait()}; see worker-{number}.log")
            return Outcome(**json.loads(answer))
        finally:
            del self._working[attempt_id]
            self._idle.put(number)

    def _start(self, number: int) -> subprocess.Popen[str]:
        changes = {f"{library}_NUM_THREADS": str(self._threads) for library in ("OMP", "MKL", "OPENBLAS")}
        if gpus := _gpus():
            changes["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        with (self._logs / f"worker-{number}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "zoo_harness.sweeps.worker"],
                env={**os.environ, **changes},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C must reach only this process, which then closes the pool
            )

    def cancel(self, attempt_id: str) -> None:
        """Kill the worker of an attempt."""
        if attempt_id in self._working:
            self._working[attempt_id].kill()

    def close(self) -> None:
        """Close the input of every worker, which interrupts its run, and kill workers that do not end in time."""
        for worker in self._workers.values():
            with suppress(OSError):
                worker.stdin.close()  # type: ignore[union-attr]
        for worker in self._workers.values():
            try:
                worker.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
        self._executor.shutdown()
        for worker in self._workers.values():
            worker.wait()
            worker.stdout.close()  # type: ignore[union-attr]


def _gpus() -> list[str]:
    """Return the names of this machine's GPUs for ``CUDA_VISIBLE_DEVICES``, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number in range(len([*Path("/dev").glob("nvidia[0-9]*")]))]


class RayTasks(ThisProcess):
    """Tasks of a Ray cluster, each in a new process; if a node is lost, Ray executes its tasks on other nodes."""

    slots = 2**31  # Ray queues tasks until a node is free, and an autoscaler adds nodes for queued tasks

    def __init__(self, address: str, threads: int, gpus: float) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--address needs Ray; try: pip install 'blockzoo[ray]'", code="ray-missing")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._connects = not ray.is_initialized()  # false if the calling program has connected to Ray
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            if self._connects:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            message = f"--address {address!r:.100} cannot be reached: {reason}; try 'ray start --head'"
            raise UsageError(message, code="ray-unreachable", option="address", given=address) from error
        super().__init__(threads)
        self._ray = ray
        self._task: Any = ray.remote(max_retries=3, max_calls=1, num_cpus=threads, num_gpus=gpus)(_attempt_on_node)
        self._references: dict[str, Any] = {}

    def submit(self, run: PlannedRun, attempt_id: str, node: str) -> Future[Outcome]:
        """Submit a task, which Ray executes on ``node`` if the node has enough free CPUs and GPUs."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True) if node else "DEFAULT"
        task = self._task.options(name=run.key, scheduling_strategy=strategy)
        reference = self._references[attempt_id] = task.remote(run, attempt_id, self._threads)
        return reference.future()  # type: ignore[no-any-return]

    def cancel(self, attempt_id: str) -> None:
        """Kill the worker of the task."""
        self._ray.cancel(self._references.pop(attempt_id), force=True)

    def close(self) -> None:
        """Interrupt the tasks, wait until they have written their files, and disconnect from Ray."""
        references = [*self._references.values()]
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=_GRACE_SECONDS)
        if self._connects:
            self._ray.shutdown()


def _attempt_on_node(run: PlannedRun, attempt_id: str, threads: int) -> Outcome:
    import ray

    return attempt(run, attempt_id, threads, ray.get_runtime_context().get_node_id())
