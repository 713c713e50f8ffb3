"""The log of individual training steps, ``steps.jsonl``: the record of one line, and a strict reader."""

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

    ``loss`` is the mean loss per image of the step's batch, before the weights change. ``images_per_second`` is
    measured since the previously logged step or the start of the epoch, without the time for evaluation.
    """

    step: Number
    epoch: Annotated[int, Field(gt=0, le=MOST_EPOCHS)]
    loss: Loss
    learning_rate: NotNegative
    images_per_second: NotNegative


def read_steps(directory: Path) -> tuple[StepRecord, ...]:
    """Read the logged training steps of a run directory; ``()`` if no step was logged.

    A last line without a line break is ignored, because the run is writing the line or was killed. Raises
    :class:`~zoo.errors.DataError` for an invalid log, such as one whose step numbers do not increase.
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
        message = f"{path} is not a log of steps: {error}; remove the file to continue without it"
        raise DataError(message, code="steps-invalid", path=path, line=error.line) from error


def _fault(new: StepRecord, before: StepRecord | None) -> str | None:
    if before is None or (new.step > before.step and new.epoch >= before.epoch):
        return None
    return f"step {new.step:,} of epoch {new.epoch:,} after step {before.step:,}"
