"""Check that a run is resumed with the same options, data, weights and settings as before."""

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
# These fields of a record may differ if a path is written or located differently, or with another version of zoo. They
# are not compared when a run is resumed, because digests in the record identify the data.
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
    """Return a warning if package versions or the machine have changed, because the results may differ in last bits.

    Raises :class:`~zoo.errors.UsageError` if data, weights or settings differ; the message lists the differences.
    """
    before, after = (
        _without_descriptions(earlier.model_dump(mode="json")),
        _without_descriptions(now.model_dump(mode="json")),
    )
    if before["weights"]["sha256"] == after["weights"]["sha256"] is not None:  # the weights file was moved or renamed
        after["weights"]["source"] = before["weights"]["source"]
    if earlier.backbone.source_sha256 is None:  # older records lack this digest
        after["backbone"]["source_sha256"] = None
    changed = [line for part in _DECISIVE for line in _differences(part, before[part], after[part])]
    if changed:
        message = f"--resume {directory}: settings or data differ from those of the run: {'; '.join(changed[:5])}"
        raise UsageError(message, code="resume-other-run", differing=tuple(line.partition(" ")[0] for line in changed))
    other = [line for part in ("versions", "host") for line in _differences(part, before[part], after[part])]
    if not other:
        return []
    return [f"results may not be bit-identical to an uninterrupted run: {'; '.join(other[:5])}"]


def run_identity(record: RunRecord, scored: Mapping[str, object]) -> str:
    """Return the SHA-256 of everything that determines a run: its options, data, weights and network.

    ``scored`` holds options that select what is scored, because the record lacks these options. The digest also covers
    the scores before training, because a resumed run reads these scores from its record. Default values are not part of
    the digest, so that a later version can add settings without changing the digest.
    """
    content = _without_descriptions(record.model_dump(mode="json", exclude_defaults=True))
    if record.weights.sha256:  # the weights file may have been moved
        del content["weights"]["source"]
    begun = record.results.separation_raw_pixels, record.results.separation_before
    # The test scores are excluded, because they do not exist before the run ends.
    scores = [score and score.model_dump(mode="json", exclude={"test"}, exclude_defaults=True) for score in begun]
    decisive = [*(content[part] for part in _DECISIVE), dict(scored), scores]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def refuse_other_history(directory: Path, history: tuple[EpochRecord, ...], epochs: int) -> None:
    """Raise :class:`~zoo.errors.DataError` if ``history.jsonl`` does not match the ``history`` of the training state.

    The training state of an epoch is written before the epoch's line in the file, so the file may lack lines. The file
    may have one line too many if the newest training state is damaged and the one before is used.
    """
    path, lines = directory / HISTORY, read_history(directory)
    common = min(len(lines), len(history))
    fault = ""
    if len(history) > epochs or len(lines) > epochs:
        fault = f"it has {max(len(history), len(lines))} epochs; the run has {epochs}"
    elif lines[:common] != history[:common]:
        fault = "its epochs differ from those of the run's training state"
    elif len(lines) > len(history) + 1 or (lines and not history):
        fault = f"it has {len(lines)} epochs; the run's training state has {len(history)}"
    if fault:
        message = f"--resume {directory}: {path.name} belongs to another run: {fault}; start again in a new folder"
        raise DataError(message, code="history-of-another-run", path=path)


def refuse_finished(directory: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` if the run in this directory is finished."""
    if (directory / RUN).is_file() and read_run(directory).status == "finished":
        message = f"--resume {directory}: the run is finished; expected an unfinished run, which zoo runs lists"
        raise UsageError(message, code="resume-finished", path=directory)


def _without_descriptions(content: dict[str, Any]) -> dict[str, Any]:
    for part, name in _DESCRIPTIONS:
        content[part].pop(name, None)
    settings = content["settings"]  # the GPU number is dropped, because each process of a run has its own GPU
    settings["device"] = settings["device"].partition(":")[0]
    return content


def _differences(path: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _differences(f"{path}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{path} {before!r:.60} -> {after!r:.60}"


def resumed(directory: Path, asked: StoredOptions) -> StoredOptions:
    """Return the stored options of the run to resume, changed by given options that a resumed run may change.

    Raises :class:`~zoo.errors.UsageError` that names every other given option that differs from the stored one.
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
    """Whether two values are equal, or are paths of the same file or folder, such as a folder and a link to it."""
    if not isinstance(one, str | Path) or not isinstance(other, str | Path):
        return one == other
    (kind, _colon, path), (other_kind, _mark, other_path) = (str(each).rpartition(":") for each in (one, other))
    both_absolute = path.startswith("/") and other_path.startswith("/")
    return one == other or (
        both_absolute and kind == other_kind and os.path.realpath(path) == os.path.realpath(other_path)
    )


def _is_the_recipes(name: str, given: object, directory: Path) -> bool:
    """Whether a given training option equals the value that the run has from its recipe."""
    if name not in TRAINING_OPTIONS:
        return False
    try:
        has = read_run(directory).settings.training
    except (UsageError, DataError):  # the run was killed before its record was written
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
