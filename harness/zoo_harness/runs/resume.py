"""Check that a run is resumed with the options, data, weights and settings that it began with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.errors import DataError, UsageError
from zoo_harness.records.file_names import HISTORY
from zoo_harness.records.option import declared
from zoo_harness.records.option_checks import TRAINING_OPTIONS, apply_overrides, parse_input_size
from zoo_harness.records.options import EvalOptions
from zoo_harness.records.run import RUN, EpochRecord, RunRecord, read_history, read_run
from zoo_harness.records.stored_options import StoredOptions, read_options

_DECISIVE = ("backbone", "weights", "dataset", "settings", "parameters")
# They depend on how a path was typed, on where files lie, or on the version that wrote them; digests say what was read.
_DESCRIPTIONS = [
    ("dataset", name)
    for name in (
        "argument",
        "title",
        "source",
        "reading",
        "skipped",
        "license",
        "citation",
        "hub_id",
        "subset",
        "duplicates",
    )
]


def refuse_changes(earlier: RunRecord, now: RunRecord, directory: Path) -> list[str]:
    """Return warnings of other versions or another processor, which may change the last bits.

    Raises :class:`~zoo.errors.UsageError` with the data, weights and settings that differ.
    """
    before, after = (
        _without_descriptions(earlier.model_dump(mode="json")),
        _without_descriptions(now.model_dump(mode="json")),
    )
    if before["weights"]["sha256"] == after["weights"]["sha256"] is not None:  # the same file under another path
        after["weights"]["source"] = before["weights"]["source"]
    if earlier.backbone.source_sha256 is None:  # written before records had it
        after["backbone"]["source_sha256"] = None
    changed = [line for part in _DECISIVE for line in _differences(part, before[part], after[part])]
    if changed:
        message = f"--resume {directory}: these differ from what the run began with: {'; '.join(changed[:5])}"
        raise UsageError(message, code="resume-other-run", differing=tuple(line.partition(" ")[0] for line in changed))
    other = [line for part in ("versions", "host") for line in _differences(part, before[part], after[part])]
    if not other:
        return []
    return [f"results may not be bit-identical to an uninterrupted run: {'; '.join(other[:5])}"]


def run_identity(record: RunRecord, scored: Mapping[str, object]) -> str:
    """Return the SHA-256 of everything that determines a run: its options, data, weights and network.

    ``scored``: the options that choose what is scored, which the record lacks. The scores before training count too,
    because a resumed run takes them from its record. A key that a later version adds does not change the digest,
    because defaults do not count.
    """
    content = _without_descriptions(record.model_dump(mode="json", exclude_defaults=True))
    if record.weights.sha256:  # the same file may lie elsewhere
        del content["weights"]["source"]
    begun = record.results.separation_raw_pixels, record.results.separation_before
    # The test split is scored at the end.
    scores = [score and score.model_dump(mode="json", exclude={"test"}, exclude_defaults=True) for score in begun]
    decisive = [*(content[part] for part in _DECISIVE), dict(scored), scores]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def refuse_other_history(directory: Path, history: tuple[EpochRecord, ...], epochs: int) -> None:
    """Raise :class:`~zoo.errors.UsageError` if ``history.jsonl`` is not that of a state with this ``history``.

    The state is written before its line in the file, so the file may lack lines. It may have one line more, if the
    newest state is damaged.
    """
    path, lines = directory / HISTORY, read_history(directory)
    common = min(len(lines), len(history))
    fault = ""
    if len(history) > epochs or len(lines) > epochs:
        fault = f"it has {max(len(history), len(lines))} epochs; the run has {epochs}"
    elif lines[:common] != history[:common]:
        fault = "its figures are not those of the run's training state"
    elif len(lines) > len(history) + 1 or (lines and not history):
        fault = f"it has {len(lines)} epochs; the run's training state has {len(history)}"
    if fault:
        message = f"--resume {directory}: {path.name} is of another run: {fault}; start again in a new folder"
        raise DataError(message, code="history-of-another-run", path=path)


def refuse_finished(directory: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` if the run in this directory is finished."""
    if (directory / RUN).is_file() and read_run(directory).status == "finished":
        message = f"--resume {directory}: the run is finished; expected an unfinished run, which zoo runs lists"
        raise UsageError(message, code="resume-finished", path=directory)


def _without_descriptions(content: dict[str, Any]) -> dict[str, Any]:
    for part, name in _DESCRIPTIONS:
        content[part].pop(name, None)
    settings = content["settings"]  # of several processes each has its own GPU
    settings["device"] = settings["device"].partition(":")[0]
    return content


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{path} {before!r:.60} -> {after!r:.60}"


def resumed(directory: Path, asked: StoredOptions) -> StoredOptions:
    """Return the options of the run to resume; the given ones must be the same, or replace those that may change.

    Raises :class:`~zoo.errors.UsageError` that names every option that differs.
    """
    kept, asked = read_options(directory), asked.to_keep()
    had = {"name": kept.name, "dataset": kept.dataset, **kept.values}
    free = {name: value for name, value in asked.given.items() if not declared(EvalOptions)[name][1].fixed}
    given = {"name": asked.name, "dataset": asked.dataset, **asked.given}
    differing = {
        name: f"{_as_given(name, value)} (the run has {_as_kept(name, had[name])})"
        for name, value in given.items()
        if value is not None
        and name not in free
        and not same_place(value, had[name])
        and not _same_size(name, value, had[name])
        and not _is_the_recipes(name, value, directory)
    }
    if differing:
        message = (
            f"--resume {directory}: options differ from those of the run: {', '.join(differing.values())}; leave them "
            "out, or start a new run"
        )
        raise UsageError(message, code="resume-other-options", differing=tuple(differing))
    return replace(kept, given={**kept.given, **free})  # type: ignore[typeddict-item]


def _same_size(name: str, *values: Any) -> bool:
    """Whether two values are the same input size, such as 32 and "32x32"."""
    return name == "input_size" and len(set(map(parse_input_size, values))) == 1


def same_place(one: object, other: object) -> bool:
    """Whether two values are equal, or name the same place, such as a folder and a link to it."""
    if not isinstance(one, str | Path) or not isinstance(other, str | Path):
        return one == other
    (kind, _colon, path), (other_kind, _mark, other_path) = (str(each).rpartition(":") for each in (one, other))
    both_absolute = path.startswith("/") and other_path.startswith("/")
    return one == other or (
        both_absolute and kind == other_kind and os.path.realpath(path) == os.path.realpath(other_path)
    )


def _is_the_recipes(name: str, given: object, directory: Path) -> bool:
    """Whether a training setting equals that of the run, which has it from its recipe."""
    if name not in TRAINING_OPTIONS:
        return False
    try:
        has = read_run(directory).settings.training
    except (UsageError, DataError):  # killed before its record was written
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
    return "the recipe's" if value is None and name in TRAINING_OPTIONS else str(value)
