"""Check that a run is resumed with the options, data, weights and settings that it began with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from zoo.backbone import Training
from zoo.errors import UsageError
from zoo_harness.records.option import declared
from zoo_harness.records.options import EvalOptions
from zoo_harness.records.overrides import apply_overrides
from zoo_harness.records.run import RUN, RunRecord, read_run
from zoo_harness.records.stored_options import StoredOptions, read_options

_DECISIVE = ("backbone", "weights", "dataset", "settings", "parameters")


def refuse_changes(earlier: RunRecord, now: RunRecord, directory: Path) -> list[str]:
    """Return warnings of other versions or another processor, which may change the last bits.

    Raises :class:`~zoo.errors.UsageError` with the data, weights and settings that differ.
    """
    before, after = earlier.model_dump(mode="json"), now.model_dump(mode="json")
    if earlier.backbone.source_sha256 is None:  # written before records had it
        after["backbone"]["source_sha256"] = None
    after["dataset"]["duplicates"] = before["dataset"]["duplicates"]  # they follow from the digests of the images
    changed = [line for part in _DECISIVE for line in _differences(part, before[part], after[part])]
    if changed:
        raise UsageError(
            f"--resume {directory}: these differ from what the run began with: {'; '.join(changed[:5])}",
            code="resume-other-run",
            differing=tuple(line.partition(" ")[0] for line in changed),
        )
    other = [line for part in ("versions", "host") for line in _differences(part, before[part], after[part])]
    if not other:
        return []
    return [f"results may not be bit-identical to an uninterrupted run: {'; '.join(other[:5])}"]


def refuse_finished(directory: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` if the run in this directory is finished."""
    if (directory / RUN).is_file() and read_run(directory).status == "finished":
        raise UsageError(f"--resume {directory}: the run is finished", code="resume-finished", path=directory)


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{path} {before!r:.60} -> {after!r:.60}"


def resumed(directory: Path, asked: StoredOptions) -> StoredOptions:
    """Return the options of the run to resume; the given ones must be the same.

    Raises :class:`~zoo.errors.UsageError` that names every option that differs.
    """
    kept, whole = read_options(directory), asked.anchored()
    kept_values, known = kept.values, declared(EvalOptions)
    pairs: dict[str, tuple[Any, ...]] = {
        name: tuple(getattr(options, name) for options in (asked, whole, kept)) for name in ("name", "dataset")
    }
    for name, value in asked.given.items():
        if known[name][1].stored:
            pairs[name] = value, whole.given.get(name), kept_values.get(name)
    differing = {
        name: f"{_as_given(name, given)} (the run has {_as_kept(name, had)})"
        for name, (given, absolute, had) in pairs.items()
        if given is not None and absolute != had and not _is_the_recipes(name, given, directory)
    }
    if differing:
        raise UsageError(
            f"--resume {directory}: options differ from those of the run: {', '.join(differing.values())}; leave them "
            "out, or start a new run",
            code="resume-other-options",
            differing=tuple(differing),
        )
    return kept


def _is_the_recipes(name: str, given: object, directory: Path) -> bool:
    """Whether a training setting equals that of the run, which has it from its recipe."""
    if name not in _OF_RECIPES:
        return False
    try:
        has = read_run(directory).settings.training
    except UsageError:  # killed before its record was written
        return False
    return apply_overrides(has, {name: given}) == has


def _as_given(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if name == "name":
        return str(value)
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def _as_kept(name: str, value: object) -> str:
    return "the recipe's" if value is None and name in _OF_RECIPES else str(value)


_OF_RECIPES = frozenset(field.name for field in fields(Training))
