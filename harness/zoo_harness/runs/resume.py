"""What must not change between the beginning of a run and its resumption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from zoo.backbone import Training
from zoo.errors import UsageError
from zoo_harness.records.options import RunOptions, read_options
from zoo_harness.records.overrides import apply_overrides
from zoo_harness.records.run import RUN, RunRecord, read_run

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


def resumed(directory: Path, asked: RunOptions, given: Iterable[str]) -> RunOptions:
    """The options of the run to resume; of ``asked``, those that were ``given`` must be the same.

    Raises :class:`~zoo.errors.UsageError` with every one that differs.
    """
    kept, whole = read_options(directory), asked.anchored()
    differing = [
        f"{_as_given(name, getattr(asked, name))} (the run has {_as_kept(name, kept)})"
        for name in given
        if getattr(whole, name) != getattr(kept, name) and not _is_the_recipes(name, asked, directory)
    ]
    if differing:
        told = ", ".join(differing)
        raise UsageError(f"--resume {directory}: settings differ: {told}; leave them out, or start anew")
    return kept


def _is_the_recipes(name: str, asked: RunOptions, directory: Path) -> bool:
    """Whether a training setting is what the run has without having been given it."""
    if name not in asked.training:
        return False
    try:
        has = read_run(directory).settings.training
    except UsageError:  # killed before its record was written
        return False
    return apply_overrides(has, {name: asked.training[name]}) == has


def _as_given(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if name == "name":
        return str(value)
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def _as_kept(name: str, kept: RunOptions) -> str:
    value = getattr(kept, name)
    return "the recipe's" if value is None and name in _OF_RECIPES else str(value)


_OF_RECIPES = frozenset(field.name for field in fields(Training))
