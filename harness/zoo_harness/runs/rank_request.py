"""Check the options of ``zoo.rank`` before torch is imported and before any file is written or downloaded."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import UsageError, check_choice
from zoo.registry import load_registry
from zoo_harness.models.weight_source import find_local
from zoo_harness.records import option_checks
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import RankOptions
from zoo_harness.records.run import RunRecord, read_run, record_file
from zoo_harness.records.subset import check_exclusive
from zoo_harness.runs.directory import RUNS, check_out
from zoo_harness.runs.rank_options import StoredRanking, resumed_ranking
from zoo_harness.runs.request import DataRequest, choose_data
from zoo_harness.util.durations import parse_duration

if TYPE_CHECKING:
    from zoo_harness.ranking.scores import RankDefinition


@dataclass(frozen=True, kw_only=True)
class RankRequest(DataRequest):
    """A checked request for a ranking: the backbones and runs to rank, the data, and all options.

    ``runs`` has the name, folder and record of each run. ``controls`` adds two controls: raw pixels and random weights.
    ``budget`` is in seconds. ``against`` lists the folders of runs whose accuracies are compared with the scores.
    ``stored`` is the request in the form that ``options.json`` stores.
    """

    backbones: tuple[Backbone, ...]
    runs: tuple[tuple[str, Path, RunRecord], ...]
    controls: bool
    max_parameters: int | None
    budget: float | None
    scores: tuple[RankDefinition, ...]
    against: tuple[Path, ...]
    input_size: tuple[int, int] | None
    options: RankOptions
    command: tuple[str, ...]
    stored: StoredRanking
    resume: Path | None

    @property
    def tune(self) -> int:
        """The number of best backbones that the ranking fine-tunes, 0 by default."""
        return self.options["tune"] or 0

    @property
    def in_python(self) -> bool:
        """Whether the dataset or a backbone was given as a Python object instead of a name."""
        return self.stored.in_python

    def write_options(self, folder: Path) -> None:
        """Write the request into the folder of the ranking, so that the ranking can be resumed."""
        self.stored.write(folder)


def check_rank(
    dataset: str | Dataset | None,
    backbones: Sequence[str | Backbone | Path],
    given: RankOptions,
    command: tuple[str, ...],
) -> RankRequest:
    """Resolve backbone names, globs and runs, and check options; raise :class:`~zoo.errors.ZooError` on a mistake.

    If no backbone is given, the ranking has every backbone whose weights are on this machine, and two controls. The
    default dataset is ``digits``.
    """
    resume = given.get("resume")
    if resume is not None:
        if given.get("out") is not None:
            message = f"--resume {resume} continues in the folder of the ranking; leave out --out"
            raise UsageError(message, code="resume-with-out")
        stored = resumed_ranking(resume, dataset, backbones, given)
        svg = given.get("svg", stored.given.get("svg", False))
        given = {**stored.given, "cache": given.get("cache", "auto"), "svg": svg}
        if not stored.in_python:
            dataset, backbones = stored.dataset, [each for each in stored.backbones if each is not None]
    options = with_defaults(RankOptions, given)
    dataset = "digits" if dataset is None else dataset
    option_checks.check_device(options["device"], options["precision"])
    input_size = option_checks.parse_input_size(options["input_size"])
    values: Mapping[str, Any] = {**options, "limit": options["images"], "val_fraction": None}
    check_exclusive({name: options[name] for name in ("per_class", "images", "fraction")})
    data = choose_data(dataset, values)
    check_out(options["out"], default=RUNS)
    budget = None if options["budget"] is None else parse_duration("--budget", str(options["budget"]))
    if options["epochs"] is not None and not options["tune"]:
        message = f"--epochs {options['epochs']} works only with --tune, which is missing; add --tune N"
        raise UsageError(message, code="option-unused", option="epochs")
    if budget is not None and options["halving"] is False:
        message = "--budget is unused with --no-halving, which scores all images in one round; leave one out"
        raise UsageError(message, code="option-unused", option="halving")
    from zoo_harness.ranking.scores import choose_scores, with_hits  # imports numpy

    scores = with_hits(choose_scores(options["scores"]), given.get("sort"))
    wanted = [options["license"]] if isinstance(options["license"], str) else options["license"]
    shares = [score.key for score in scores if score.share]
    options["sort"] = check_choice("--sort", given.get("sort", shares[0]), shares)
    folders = [Path(each).expanduser() for each in backbones if not isinstance(each, Backbone) and _names_a_run(each)]
    records = [each for each in backbones if isinstance(each, Backbone) or not _names_a_run(each)]
    named = _resolved(records, all_local=not backbones)
    found = tuple(_licensed(named, wanted))
    if not found and not folders:
        licences = ", ".join(sorted({backbone.license or "unknown" for backbone in named}))
        fault = "no weights are on this machine"
        if wanted:
            fault = f"--license {', '.join(wanted)} matches none of the licences of the backbones ({licences})"
        message = f"nothing to rank: {fault}; expected backbones; zoo list and zoo show NAME describe them"
        raise UsageError(message, code="nothing-to-rank")
    names = tuple(each if isinstance(each, str) else None for each in backbones)
    return RankRequest(
        **vars(data),
        backbones=found,
        runs=tuple(_runs(folders)),
        max_parameters=_number(options["max_parameters"]),
        budget=budget,
        controls=not backbones,
        scores=scores,
        against=tuple(find_runs(options["against"] or ())),
        input_size=input_size,
        options=options,
        command=command,
        stored=StoredRanking(dataset if isinstance(dataset, str) else None, names, given),
        resume=resume,
    )


def find_runs(paths: Sequence[str]) -> Iterator[Path]:
    """Yield the run folders at the given paths; if a path is a folder of runs, yield its runs ordered by name.

    Raises :class:`~zoo.errors.UsageError` for a path without runs.
    """
    for path in (Path(each).expanduser() for each in paths):
        if not path.is_dir():
            message = f"--against {str(path)!r} is not a folder; expected a run, or a folder of runs"
            raise UsageError(message, code="missing-folder", option="against", path=path)
        runs = [path] if record_file(path).exists() else [each for each in sorted(path.iterdir()) if _is_run(each)]
        if not runs:
            message = f"--against {str(path)!r} has no runs; expected a run, or a folder of runs"
            raise UsageError(message, code="not-a-run", option="against", path=path)
        yield from runs


def _is_run(path: Path) -> bool:
    return path.is_dir() and record_file(path).exists()


def _names_a_run(given: str | Path) -> bool:
    """Whether ``given`` is a path, or is text that names the folder of a run and no backbone.

    Raises :class:`~zoo.errors.UsageError` for text with a slash that names neither a backbone nor a run.
    """
    if isinstance(given, Path):
        return True
    if load_registry().knows(given):
        return False
    if _is_run(Path(given).expanduser()):
        return True
    if Path(given).expanduser().is_dir():
        message = f"the folder {given!r} is no run; for a folder of images use --dataset imagefolder:{given}"
        raise UsageError(message, code="not-a-run", path=given)
    if "/" in given and not given.startswith("timm:"):
        message = f"{given!r} is neither a backbone nor the folder of a run; zoo runs lists the runs of a folder"
        raise UsageError(message, code="not-a-run", path=given)
    return False


def _runs(folders: Sequence[Path]) -> Iterator[tuple[str, Path, RunRecord]]:
    records = [read_run(folder) for folder in folders]
    own_names = [folder.resolve().name for folder in folders]
    names = ["run" if name == record.backbone.name else name for name, record in zip(own_names, records, strict=True)]
    for folder, name, record in zip(folders, names, records, strict=True):
        called = name if names.count(name) == 1 else str(folder)
        if record.checkpoint_sha256 is None:
            message = f"the run has no checkpoint: {str(folder)!r} is {record.status}; expected a finished run"
            raise UsageError(message, code="no-checkpoint", path=folder)
        yield f"{record.backbone.name} ({called})", folder, record


def _number(text: str | int | None) -> int | None:
    """Parse a number that may end in K, M, B or G, such as ``30M`` for 30 million.

    >>> _number("30M"), _number("1.5B"), _number("400000")
    (30000000, 1500000000, 400000)
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMbBgG]?)", str(text).strip())
    if found is None or not float(found[1]):
        raise UsageError(
            f"--max-parameters is wrong: {text!r:.80}; expected a number such as 30M",
            code="option-value",
            option="max_parameters",
        )
    return round(float(found[1]) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}[found[2].lower()])


def _resolved(backbones: Sequence[str | Backbone | Path], *, all_local: bool) -> list[Backbone]:
    registry = load_registry()
    if all_local:
        return [each for each in registry.backbones.values() if each.weights.kind != "random" and find_local(each)]
    found: dict[str, Backbone] = {}
    for each in backbones:
        records = [each] if isinstance(each, Backbone) else map(registry.backbone, registry.backbone_names(str(each)))
        found |= {record.name: record for record in records}
    return list(found.values())


def _licensed(backbones: Sequence[Backbone], licences: Sequence[str] | None) -> list[Backbone]:
    if not licences:
        return list(backbones)
    return [each for each in backbones if any(fnmatch.fnmatch(each.license or "unknown", one) for one in licences)]
