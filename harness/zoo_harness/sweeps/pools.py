"""Places where the runs of a sweep are computed: this process, local workers, or a Ray cluster.

Each has ``slots``, the number of runs to submit at a time. ``submit`` returns a future of the outcome, whose exception
says that the worker was lost.
"""

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
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.sweeps.attempt import Outcome, attempt
from zoo_harness.sweeps.plan import PlannedRun

_PATIENCE = 60.0  # seconds for an interrupted run to write its files


class ThisProcess:
    """Computes one run at a time, in ``submit``; the base of the other places."""

    slots = 1
    on_epoch: Callable[[], None]

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def submit(self, run: PlannedRun, token: str, node: str) -> Future[Outcome]:
        """Begin an attempt, on ``node`` if there is a choice and room."""
        del node
        done: Future[Outcome] = Future()
        done.set_result(attempt(run, token, self._threads, on_epoch=self.on_epoch))
        return done

    def cancel(self, token: str) -> None:
        """End an attempt that hangs."""

    def close(self) -> None:
        """Interrupt all attempts, which leaves runs that can be resumed."""


class LocalWorkers(ThisProcess):
    """Processes on this machine, each with one run at a time; a killed one is replaced when it is needed."""

    def __init__(self, count: int, threads: int, log: Path) -> None:
        super().__init__(threads)
        self.slots, self._log = count, log
        self._executor = ThreadPoolExecutor(count)  # a thread waits for each worker
        self._idle: queue.SimpleQueue[tuple[int, subprocess.Popen[str] | None]] = queue.SimpleQueue()
        self._working: dict[str, subprocess.Popen[str]] = {}
        for number in range(count):
            self._idle.put((number, None))
        log.mkdir(parents=True, exist_ok=True)

    def submit(self, run: PlannedRun, token: str, node: str) -> Future[Outcome]:
        """Give the run to an idle worker."""
        del node
        return self._executor.submit(self._ask, run, token)

    def _ask(self, run: PlannedRun, token: str) -> Outcome:
        number, worker = self._idle.get()
        if worker is None or worker.poll() is not None:
            worker = self._start(number)
        self._working[token] = worker
        try:
            assert worker.stdin is not None is not worker.stdout  # noqa: S101 - both are pipes
            with suppress(BrokenPipeError):
                worker.stdin.write(json.dumps({"run": asdict(run), "token": token, "threads": self._threads}) + "\n")
                worker.stdin.flush()
            answer = worker.stdout.readline()
            if not answer:
                raise ChildProcessError(f"worker {number} ended with status {worker.wait()}; see worker-{number}.log")
            return Outcome(**json.loads(answer))
        finally:
            del self._working[token]
            self._idle.put((number, worker))

    def _start(self, number: int) -> subprocess.Popen[str]:
        threads = {f"{library}_NUM_THREADS": str(self._threads) for library in ("OMP", "MKL", "OPENBLAS")}
        gpus = _gpus()
        device = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        with (self._log / f"worker-{number}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "zoo_harness.sweeps.worker"],
                env={**os.environ, **threads, **device},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the conductor, which closes the input
            )

    def cancel(self, token: str) -> None:
        """Kill the worker."""
        if token in self._working:
            self._working[token].kill()

    def close(self) -> None:
        """Close the input of every worker, which interrupts its run; kill those that do not end."""
        workers = [*self._working.values()]
        while not self._idle.empty():
            workers += [worker for _number, worker in [self._idle.get()] if worker is not None]
        for worker in workers:
            with suppress(OSError):
                worker.stdin.close()  # type: ignore[union-attr]
        for worker in workers:
            try:
                worker.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._executor.shutdown()
        for worker in workers:
            worker.stdout.close()  # type: ignore[union-attr]


def _gpus() -> list[str]:
    """Return the GPUs of this machine as CUDA names them, without asking torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    return [str(number) for number in range(len([*Path("/dev").glob("nvidia[0-9]*")]))]


class RayTasks(ThisProcess):
    """Tasks of a Ray cluster, each a process of its own; Ray runs the task of a lost node again, on another node."""

    slots = 2**31  # Ray queues what its nodes cannot begin yet, and an autoscaler adds nodes for it

    def __init__(self, address: str, threads: int, gpus: float) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--address needs Ray; try: pip install 'blockzoo[ray]'", code="ray-missing")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._connected = not ray.is_initialized()  # else the calling program is connected already
        own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            if self._connected:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            message = (
                f"--address {address!r:.100} cannot be reached: {str(error).splitlines()[0]}; try 'ray start --head'"
            )
            raise UsageError(message, code="ray-unreachable", option="address", given=address) from error
        super().__init__(threads)
        self._ray, self._redirected = ray, redirect_stdout(sys.stderr)  # Ray prints that a node is lost
        self._redirected.__enter__()
        self._task: Any = ray.remote(max_retries=3, max_calls=1, num_cpus=threads, num_gpus=gpus)(_task)
        self._references: dict[str, Any] = {}

    def submit(self, run: PlannedRun, token: str, node: str) -> Future[Outcome]:
        """Submit a task, to be computed on ``node`` if there is room."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        near = NodeAffinitySchedulingStrategy(node, soft=True, _spill_on_unavailable=True) if node else "DEFAULT"
        task = self._task.options(name=run.key, scheduling_strategy=near)
        reference = self._references[token] = task.remote(run, token, self._threads)
        return reference.future()  # type: ignore[no-any-return]

    def cancel(self, token: str) -> None:
        """Kill the worker of the task."""
        self._ray.cancel(self._references.pop(token), force=True)

    def close(self) -> None:
        """Interrupt the tasks, give them time to write their files, and leave the cluster."""
        references = [*self._references.values()]
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=_PATIENCE)
        if self._connected:
            self._ray.shutdown()
        self._redirected.__exit__(None, None, None)


def _task(run: PlannedRun, token: str, threads: int) -> Outcome:
    import ray

    return attempt(run, token, threads, ray.get_runtime_context().get_node_id())
