"""Store the options of a run as ``options.json`` in the run directory, so that the run can be resumed.

``options.json`` may contain paths of this machine, so it is never published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.errors import DataError, UsageError, ZooError
from zoo_harness.records.normalization import parse_channels
from zoo_harness.records.option import checked, declared, with_defaults
from zoo_harness.records.options import EvalOptions, TrainOptions
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.safe_files import read_regular

OPTIONS = "options.json"
_MOST_BYTES = 2**20
IN_PYTHON = "given_in_python"


@dataclass(frozen=True)
class StoredOptions:
    """The options of a run, as its ``options.json`` stores them.

    ``name`` and ``dataset`` are the names on the command line. ``given`` holds the options that the user gave, under
    the names of the ``zoo eval`` options. ``in_python`` says whether ``backbone`` or ``dataset`` was a Python object,
    which the user must pass again to resume the run.
    """

    name: str | None
    dataset: str | None
    given: EvalOptions
    from_scratch: bool = False
    in_python: tuple[str, ...] = ()

    @property
    def values(self) -> EvalOptions:
        """All options of the run: the given options, and the command's defaults for the missing options."""
        own = {name: option.default for name, (_kind, option) in declared(TrainOptions).items()}
        fixed = {**own, "recipe": "scratch"} if self.from_scratch else {}
        return with_defaults(EvalOptions, {**fixed, **self.given})

    def to_keep(self) -> StoredOptions:
        """Return the options that can change the results, with absolute paths."""
        known = declared(EvalOptions)
        given: dict[str, Any] = {name: value for name, value in self.given.items() if known[name][1].stored}
        if "data_dir" in given:
            given["data_dir"] = given["data_dir"].absolute()
        for name in ("mean", "std"):  # stored as text, even if the user passed numbers from Python
            if name in given:
                given[name] = ",".join(map(str, parse_channels(name, given[name])))
        if given.get("weights", "random") not in ("pretrained", "random"):
            given["weights"] = str(_absolute(given["weights"]))
        name, colon, argument = (self.dataset or "").partition(":")
        has_path = colon and Path(argument).expanduser().exists()
        dataset = f"{name}:{_absolute(argument)}" if has_path else self.dataset
        return replace(self, dataset=dataset, given=given)  # type: ignore[arg-type]

    def write(self, directory: Path) -> None:
        """Write the options from :meth:`to_keep` into a run directory."""
        kept = self.to_keep()
        content: dict[str, object] = {"from_scratch": True} if self.from_scratch else {}
        content |= {"name": kept.name, "dataset": kept.dataset, **kept.given}
        content |= {IN_PYTHON: self.in_python} if self.in_python else {}
        write_text(directory / OPTIONS, json.dumps(content, indent=2, default=_plain) + "\n")


def read_options(directory: Path) -> StoredOptions:
    """Read the options of the run in a directory; raise :class:`~zoo.errors.UsageError` if the file is missing.

    Raises :class:`~zoo.errors.DataError` if the file is damaged, or was written by another version.
    """
    path = directory / OPTIONS
    try:
        content = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ZooError) as error:
        reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else error
        message = f"{directory} is not a run that can be resumed: {reason}; expected the folder of an unfinished run"
        raise UsageError(message, code="resume-no-options") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error!s:.200}; start the run again", code="resume-damaged") from error
    try:
        return _parsed(content)
    except (UsageError, TypeError, AttributeError) as error:
        raise DataError(f"{path} was written by another version: {error}", code="resume-other-version") from error


def _parsed(content: object) -> StoredOptions:
    if not isinstance(content, dict):
        raise TypeError(f"{content!r:.100} is not a mapping of options")
    rest = dict(content)
    name, dataset = rest.pop("name", None), rest.pop("dataset", None)
    if not all(value is None or isinstance(value, str) for value in (name, dataset)):
        raise TypeError(f"name {name!r:.100} and dataset {dataset!r:.100} are not text")
    from_scratch, in_python = rest.pop("from_scratch", False) is True, tuple(rest.pop(IN_PYTHON, ()))
    return StoredOptions(name, dataset, checked(EvalOptions, rest), from_scratch, in_python)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value)  # type: ignore[call-overload]
