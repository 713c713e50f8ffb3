"""Downloads a published checkpoint, and copies it to a folder only after all checks have passed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.tensor_checks import check_digest
from zoo_harness.hub.fetch import fetch_snapshot
from zoo_harness.hub.locate import CheckpointPlace, fetched
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import RunRecord


def pull_checkpoint(
    reference: RepositoryReference, to: Path | None, say: Callable[[str], None]
) -> tuple[RunRecord, CheckpointPlace, Path]:
    """Fetch a checkpoint, load it, run it once, and copy it to ``to``; return its record, place and folder.

    ``to`` appears whole after all checks, or not at all. Raises a :class:`~zoo.errors.ZooError` if the repository
    cannot be fetched, and :class:`~zoo.errors.WeightsError` if the checkpoint differs from its record.
    """
    place = fetched(reference, say)
    model = load_folder(place.path, torch.device("cpu"))
    model.check_that_it_runs()
    say(f"{reference}: digest, names, types and shapes of all tensors are those of its record, and it runs")
    if to is None:
        return model.record, place, place.path
    # The verified commit, because the branch may have moved meanwhile.
    fetch_snapshot(replace(reference, revision=place.commit), to, lambda _line: None)
    assert model.record.checkpoint_sha256 is not None  # noqa: S101 - it has been loaded
    check_digest(to / CHECKPOINT, model.record.checkpoint_sha256)
    return model.record, place, to
