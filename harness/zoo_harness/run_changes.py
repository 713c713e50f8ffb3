"""What must not change between the beginning of a run and its resumption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.run_record import RUN, RunRecord, read_run

_DECISIVE = ("backbone", "weights", "dataset", "settings", "parameters")


def refuse_changes(earlier: RunRecord, now: RunRecord, directory: Path) -> list[str]:
    """Lines on what may change the last bits: other versions, another processor.

    Raises :class:`~zoo.errors.UsageError` with everything decisive that differs: data, weights, settings.
    """
    before, after = earlier.model_dump(mode="json"), now.model_dump(mode="json")
    if earlier.backbone.source_sha256 is None:  # written before records had it
        after["backbone"]["source_sha256"] = None
    changed = [line for part in _DECISIVE for line in _differences(part, before[part], after[part])]
    if changed:
        raise UsageError(f"--resume {directory}: these are not what the run began with: {'; '.join(changed[:5])}")
    other = [line for part in ("versions", "host") for line in _differences(part, before[part], after[part])]
    return [f"the bits may differ from those of an unbroken run: {'; '.join(other[:5])}"] if other else []


def refuse_finished(directory: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` where the run in this directory is finished."""
    if (directory / RUN).is_file() and read_run(directory).status == "finished":
        raise UsageError(f"--resume {directory}: the run is finished")


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{path} {before!r:.60} -> {after!r:.60}"
