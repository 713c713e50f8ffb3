"""A local worker of a sweep: ``python -m zoo_harness.sweeps.worker`` reads runs from its input, one a line.

The end of the input ends the worker, and interrupts its run: the conductor closes the input, or the kernel does so
when the conductor is killed.
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
    """Attempt each run, and write its outcome as a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    with raise_on_sigterm(), suppress(KeyboardInterrupt):
        threading.Thread(target=_read, args=(lines,), daemon=True).start()
        while True:
            request = json.loads(lines.get())
            outcome = attempt(PlannedRun(**request.pop("run")), **request)
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()


def _read(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
