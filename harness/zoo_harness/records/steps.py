"""The log of single training steps, ``steps.jsonl``: the record of a line, and a strict reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from zoo.errors import DataError, ZooError
from zoo.fields import MOST_EPOCHS
from zoo_harness.records.file_names import STEPS
from zoo_harness.records.json_lines import InvalidLineError, parse_lines
from zoo_harness.records.run import Loss, NotNegative, Number, Record
from zoo_harness.util.safe_files import read_regular

_LARGEST_LOG = 2**30  # bytes; about eight million steps


class StepRecord(Record):
    """One line of ``steps.jsonl``: a training step, counted from 1 over all epochs.

    ``loss`` is the mean per image of the step's batch, before the step. ``images_per_second`` is measured since the
    logged step before, or since the start of the epoch; it leaves evaluation out.
    """

    step: Number
    epoch: Annotated[int, Field(gt=0, le=MOST_EPOCHS)]
    loss: Loss
    learning_rate: NotNegative
    images_per_second: NotNegative


def read_steps(directory: Path) -> tuple[StepRecord, ...]:
    """Read the logged steps of a run directory; none if no step was logged.

    A last line without an end is ignored: the run is writing it, or was killed. Raises
    :class:`~zoo.errors.DataError` for a file that is not a log of steps, such as one whose steps do not rise.
    """
    path = directory / STEPS
    try:
        content = read_regular(path, _LARGEST_LOG)
    except FileNotFoundError:
        return ()
    except (OSError, ZooError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise DataError(f"{path} is not a log of steps: {reason}", code="not-a-file", path=path) from error
    try:
        return parse_lines(content, StepRecord, _fault, strict=True)
    except InvalidLineError as error:
        message = f"{path} is not a log of steps: {error}; remove it to go without it"
        raise DataError(message, code="steps-invalid", path=path, line=error.line) from error


def _fault(new: StepRecord, before: StepRecord | None) -> str | None:
    if before is None or (new.step > before.step and new.epoch >= before.epoch):
        return None
    return f"step {new.step:,} of epoch {new.epoch:,} after step {before.step:,}"
