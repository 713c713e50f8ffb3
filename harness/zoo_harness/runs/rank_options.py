"""Store the options of a ranking as ``options.json`` in its folder, so that the ranking can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import UsageError, ZooError
from zoo_harness.records.option import checked, declared
from zoo_harness.records.options import RankOptions
from zoo_harness.records.stored_options import OPTIONS
from zoo_harness.runs.resume import same_place
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.safe_files import read_regular

_MOST_BYTES = 2**20


class StoredRanking(NamedTuple):
    """The request for a ranking: its dataset, backbones and options.

    A dataset or backbone is stored by name, or as ``None`` if it was given as an object in Python.
    """

    dataset: str | None
    backbones: tuple[str | None, ...]
    given: RankOptions

    @property
    def in_python(self) -> bool:
        """Whether the dataset or a backbone was given as an object, which the user must pass again to resume."""
        return self.dataset is None or None in self.backbones

    def write(self, folder: Path) -> None:
        """Write the options that can change the ranking, with absolute paths."""
        known = declared(RankOptions)
        given = {name: _absolute(value) for name, value in self.given.items() if known[name][1].stored}
        backbones = [_stored_name(each) for each in self.backbones]
        content = {"dataset": self.dataset and _absolute_name(self.dataset), "backbones": backbones, **given}
        write_text(folder / OPTIONS, json.dumps(content, indent=2, default=list) + "\n")


def read_ranking_options(folder: Path) -> StoredRanking:
    """Read the options of the ranking in a folder; raise :class:`~zoo.errors.UsageError` if the folder has none."""
    path = folder / OPTIONS
    try:
        content = json.loads(read_regular(path, _MOST_BYTES))
        dataset, backbones = content.pop("dataset"), tuple(content.pop("backbones"))
        return StoredRanking(dataset, backbones, checked(RankOptions, content))
    except (OSError, ZooError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"--resume {folder} has no ranking that can be resumed: {path.name}: {reason!s:.200}"
        raise UsageError(message, code="resume-no-options", path=folder) from error


def resumed_ranking(
    folder: Path, dataset: object, backbones: Sequence[object], given: Mapping[str, Any]
) -> StoredRanking:
    """Return a stored request; raise :class:`~zoo.errors.UsageError` if given options differ from the stored ones."""
    stored, known = read_ranking_options(folder), declared(RankOptions)
    kept = {name: _absolute(value) for name, value in stored.given.items()}
    fixed = [name for name in given if known[name][1].stored and known[name][1].fixed]
    differing = [name for name in fixed if _absolute(given[name]) != kept.get(name)]
    if (
        isinstance(dataset, str)
        and stored.dataset is not None
        and not same_place(_absolute_name(dataset), stored.dataset)
    ):
        differing.append("dataset")
    given_names = tuple(_stored_name(each) for each in backbones)
    if backbones and not stored.in_python and given_names != tuple(map(_stored_name, stored.backbones)):
        differing.append("backbones")
    if differing:
        spelled = {"dataset": "--dataset", "backbones": "the backbones"}
        names = ", ".join(spelled.get(name) or known[name][1].spelling(name) for name in differing)
        message = f"--resume {folder} keeps the ranking's own options; leave out {names}, or start a new ranking"
        raise UsageError(message, code="resume-other-run", differing=tuple(differing))
    if stored.in_python and not backbones and not isinstance(dataset, str):
        message = f"--resume {folder}: the ranking was given Python objects; pass the same dataset and backbones again"
        raise UsageError(message, code="resume-needs-backbone", path=folder)
    return stored


def _absolute(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    return [_absolute(each) for each in value] if isinstance(value, list | tuple) else value


def _absolute_name(dataset: str) -> str:
    """Make the path in a dataset name of the form ``name:PATH`` absolute; return other names unchanged."""
    name, _colon, argument = dataset.partition(":")
    return (
        f"{name}:{Path(argument).expanduser().absolute()}"
        if argument and Path(argument).expanduser().exists()
        else dataset
    )


def _stored_name(backbone: object) -> object:
    """Return the name of a backbone, or the absolute path of a run, as the options of a ranking store it."""
    is_path = isinstance(backbone, Path) or (isinstance(backbone, str) and _is_folder(backbone))
    return _absolute(Path(str(backbone))) if is_path else backbone


def _is_folder(text: str) -> bool:
    return Path(text).expanduser().is_dir()
