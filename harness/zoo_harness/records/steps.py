"""The log of single training steps, ``steps.jsonl``: the record of a line, and a strict reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from zoo.errors import UsageError, ZooError
from zoo.fields import MOST_EPOCHS
from zoo_harness.records.file_names import STEPS
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
    :class:`~zoo.errors.UsageError` for a file that is not a log of steps, such as one whose steps do not rise.
    """
    path = directory / STEPS
    try:
        content = read_regular(path, _LARGEST_LOG)
    except FileNotFoundError:
        return ()
    except ZooError as error:
        raise UsageError(f"{path} is not a log of steps: {error}", code="not-a-file", path=path) from error
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> tuple[StepRecord, ...]:
    *lines, _unfinished = content.split(b"\n")
    steps: list[StepRecord] = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(StepRecord.model_validate_json(line, strict=True))
            before = steps[-2:][0]
            if number > 1 and (steps[-1].step <= before.step or steps[-1].epoch < before.epoch):
                raise ValueError(f"step {steps[-1].step:,} of epoch {steps[-1].epoch:,} after step {before.step:,}")
        except ValueError as error:  # pydantic's is one too
            fault = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            message = f"{path} is not a log of steps: line {number:,}: {fault:.200}; remove it to go without it"
            raise UsageError(message, code="steps-invalid", path=path, line=number) from error
    return tuple(steps)
