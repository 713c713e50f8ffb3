"""A local worker process of a sweep, which reads runs from standard input and answers with their outcomes.

The worker ends when its input ends: the sweep closes the input, or the kernel closes it if the sweep is killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import asdict

from zoo_harness.sweeps.attempt import attempt
from zoo_harness.sweeps.plan import PlannedRun
from zoo_harness.util.signals import raise_on_sigterm


def main() -> None:
    """Read each run as a line of JSON, execute the run, and write its outcome as a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    with raise_on_sigterm(), suppress(KeyboardInterrupt):
        threading.Thread(target=_read, args=(requests,), daemon=True).start()
        while True:
            request = json.loads(requests.get())
            outcome = attempt(PlannedRun(**request.pop("run")), **request)
            print(json.dumps(asdict(outcome)), file=answers, flush=True)


def _read(requests: queue.SimpleQueue[str]) -> None:
    """Read the input in a thread, so that the end of the input interrupts a run."""
    for line in sys.stdin:
        requests.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
