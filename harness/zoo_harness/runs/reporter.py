"""Receive the stages, epochs, messages and warnings of a run while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from zoo_harness.records.run import EpochRecord
from zoo_harness.util.progress import Progress, Silence

LOGGER = logging.getLogger("zoo")
LOGGER.addHandler(logging.NullHandler())
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # matplotlib's warnings about its own caches concern no run


class Reporter(Progress, Protocol):
    """Receives the stages, epochs, messages and warnings of a run.

    A reporter may also have a method ``on_resume(history)``, which receives the finished epochs of a resumed run.
    """

    def log(self, line: str) -> None:
        """Receive a message of one line."""

    def warn(self, line: str) -> None:
        """Receive a warning of one line."""

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Receive the record of an epoch that has ended."""


class LoggingReporter(Silence):
    """Passes messages and warnings to the logger ``zoo``, which is silent unless the program configures it."""

    def stage(self, name: str, images: int) -> None:
        """Log a stage at level DEBUG."""
        LOGGER.debug("%s (%d images)" if images else "%s", *((name, images) if images else (name,)))

    def log(self, line: str) -> None:
        """Log a message at level INFO."""
        LOGGER.info("%s", line)

    def warn(self, line: str) -> None:
        """Log a warning."""
        LOGGER.warning("%s", line)

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Log an epoch at level INFO."""
        split = epoch.evaluation_split or "evaluation"
        LOGGER.info("epoch %d: %s accuracy %.4f", epoch.epoch, split, epoch.evaluation_accuracy)


def report_history(history: Sequence[EpochRecord], reporter: Reporter) -> None:
    """Pass the epochs that an earlier process finished to the reporter's ``on_resume``, if the reporter has it."""
    on_resume = getattr(reporter, "on_resume", None)
    if on_resume is not None:
        on_resume(history)


def report_reading(lines: Iterable[str], warnings: Iterable[str], reporter: Reporter) -> None:
    """Report how the files of a dataset were read, and the warnings about the dataset."""
    for line in lines:
        reporter.log(line)
    for warning in warnings:
        reporter.warn(warning)
