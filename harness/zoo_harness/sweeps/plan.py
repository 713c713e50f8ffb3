"""Read the plan of a sweep, and list its runs: every combination of backbones, datasets, recipes, seeds and options.

A key at the top of a plan applies to each table of ``[runs]`` whose command has it. Nothing here imports torch.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from zoo.errors import UnknownNameError, UsageError, check_choice
from zoo.registry import load_registry
from zoo_harness.records.option import checked, declared
from zoo_harness.records.option_checks import TRAINING_OPTIONS
from zoo_harness.records.options import DataOptions, EvalOptions, LayersOptions, ScoringOptions, TrainOptions
from zoo_harness.records.rank import RANK, RankRecord
from zoo_harness.records.stored_options import StoredOptions
from zoo_harness.runs.directory import RUNS

OPTIONS_OF: dict[str, type] = {"eval": EvalOptions, "train": TrainOptions, "layers": LayersOptions}
AXES = ("backbones", "datasets", "recipes", "seeds")
_NOT_IN_PLANS = {"out", "resume", "recipe", "seed"}  # the sweep sets these itself
_OF_BACKBONES = {"weights", "input_size", "mean", "std", "normalization"}  # a run that is scored has its own
# These options leave the outputs of the frozen layers as they are, and with them the key of the cache.
_AFTER_FROZEN_PART = (TRAINING_OPTIONS - {"augment", "views"}) | declared(ScoringOptions).keys()
_CHOSEN_BY_SEED = {"per_class", "fraction", "eval_fraction", "val_fraction", "views"}


class _Part(BaseModel):
    """The keys of a table of runs that are not options of its command; ``of`` names the part whose runs are scored."""

    command: str = "eval"
    of: str | None = None
    backbones: list[str] = []
    datasets: list[str] = []
    recipes: list[str] = []
    seeds: list[int] = [0]
    exclude: list[dict[str, Any]] = []


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, in values that JSON can hold.

    ``key`` is the name of its folder. ``backbone`` is a name, or for ``layers`` of a run the folder of that run, whose
    key is ``after``. ``group`` is equal for runs that may share the cached outputs of their frozen layers, and empty
    for a run that shares nothing. ``data`` is equal for runs of a backbone on the same part of a dataset.
    """

    key: str
    command: str
    backbone: str
    dataset: str
    seed: int
    options: dict[str, Any]
    folder: str
    group: str
    data: str
    after: str | None = None

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return Path(self.folder)


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in the order to start them, its folder, and the commands to type when they are finished."""

    runs: tuple[PlannedRun, ...]
    out: Path
    next: tuple[str, ...]


def read_plan(source: str | Path | Mapping[str, Any] | None, changes: Mapping[str, Any], out: Path | None) -> Plan:
    """Read a plan from a TOML file, or take it as a mapping; ``changes`` are merged into it.

    A changed key at the top replaces the key in every part. Raises :class:`~zoo.errors.UsageError` for an unknown key,
    a value of a wrong type, an unknown name, and a plan without runs.
    """
    from_file = isinstance(source, str | Path)
    table = dict(_parsed(Path(source)) if isinstance(source, str | Path) else source or {})
    parts = {name: {**part} for name, part in table.get("runs", {"": {}}).items()}
    parts = {name: {key: part[key] for key in part.keys() - changes.keys()} for name, part in parts.items()}
    table = _merged({**table, "runs": parts}, changes)
    parts, following = table.pop("runs"), table.pop("next", [])
    folder = Path(out or table.pop("out", RUNS / (Path(str(source)).stem if from_file else "sweep")))
    table.pop("out", None)
    _check_keys(table, parts)
    runs: dict[str, list[PlannedRun]] = {}
    for name, part in parts.items():
        known = _known(_command(part, table)) - (_OF_BACKBONES if "of" in part else set())
        shared = {key: value for key, value in table.items() if key in known}
        runs[name] = list(_runs({**shared, **part}, folder.expanduser().absolute(), runs))
    every = {run.key: run for part in runs.values() for run in part}
    if not every:
        raise UsageError("the plan has no runs; give backbones and datasets, or change exclude", code="plan-empty")
    first = {run.group or run.key: number for number, run in reversed([*enumerate(every.values())])}
    in_order = sorted(every.values(), key=lambda run: first[run.group or run.key])
    return Plan(tuple(in_order), folder.expanduser().absolute(), tuple(_listed(following)))


def changes_of(lines: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` texts as lines of TOML; a value that is not TOML is text.

    >>> changes_of(["epochs=[1, 2]", "runs.scratch.weights=random"])
    {'epochs': [1, 2], 'runs': {'scratch': {'weights': 'random'}}}
    """
    found: dict[str, Any] = {}
    for line in lines:
        key, _equals, value = line.partition("=")
        for text in (line, f"{key}={json.dumps(value)}"):
            try:
                found = _merged(found, tomllib.loads(text if "=" in line else ""))
                break
            except tomllib.TOMLDecodeError:
                continue
        if "=" not in line or not key.strip():
            message = f"--set is wrong: {line!r:.100}; expected KEY=VALUE, such as epochs=5 or seeds=[0,1,2]"
            raise UsageError(message, code="option-value", option="set", given=line)
    return found


def same_data(backbone: str | None, dataset: str | None, options: Mapping[str, Any]) -> str:
    """Return a text that is equal for runs of a backbone on the same part of a dataset."""
    part = {name: options[name] for name in declared(DataOptions) if options.get(name)}
    return json.dumps([backbone, dataset, part], sort_keys=True, default=str)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        message = f"the plan cannot be read: {str(path)!r}: {error.strerror}; expected a TOML file"
        raise UsageError(message, code="missing-file", path=path) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"the plan {str(path)!r} is not TOML: {error}", code="plan-not-toml", path=path) from error


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(table[key], changes[key]) for key in table.keys() & changes if isinstance(table[key], dict)}
    return {**table, **changes, **both}


def _command(part: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    return check_choice("command", part.get("command", table.get("command", "eval")), tuple(OPTIONS_OF))


def _known(command: str) -> set[str]:
    others = {"eval": {"of"}, "train": {"of", "recipes"}, "layers": {"recipes"}}
    return (declared(OPTIONS_OF[command]).keys() - _NOT_IN_PLANS) | (_Part.model_fields.keys() - others[command])


def _check_keys(table: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    everywhere: set[str] = set()
    for part in parts.values():
        known = _known(_command(part, table))
        everywhere |= known
        for key in part.keys() - known:
            raise UnknownNameError("key of a plan", key, known)
    for key in table.keys() - everywhere:
        raise UnknownNameError("key of a plan", key, everywhere | {"out", "next", "runs"})


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _runs(table: Mapping[str, Any], out: Path, parts: Mapping[str, Sequence[PlannedRun]]) -> Iterator[PlannedRun]:
    texts = {key: [each.strip() for each in table[key].split(",")] for key in AXES if isinstance(table.get(key), str)}
    try:
        part = _Part.model_validate({**table, **texts})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        message = f"{fault['loc'][0]} in the plan is wrong: {fault['msg']}; given {fault['input']!r:.80}"
        raise UsageError(message, code="plan-value", key=fault["loc"][0]) from error
    if part.of is not None and part.of not in parts:
        raise UnknownNameError("earlier table of runs", part.of, parts)
    names = dict.fromkeys(name for text in part.backbones for name in _backbones(text))
    subjects = parts[part.of] if part.of is not None else [load_registry().backbone(name).name for name in names]
    axes: dict[str, Sequence[Any]] = {"backbone": subjects, "dataset": part.datasets, "seed": part.seeds}
    axes |= {"recipe": part.recipes} if part.recipes else {}
    axes |= {key: _listed(value) for key, value in table.items() if key not in _Part.model_fields}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        if not any(_excludes(rule, chosen) for rule in part.exclude):
            yield _planned(part.command, chosen, out)


def _backbones(text: str) -> Sequence[str]:
    """Return the backbones of a name or glob, or for ``rank:FILE`` those of the best tier of a ranking."""
    if not text.startswith("rank:"):
        return load_registry().backbone_names(text)
    path = Path(text.removeprefix("rank:")).expanduser()
    try:
        record = RankRecord.model_validate_json((path / RANK if path.is_dir() else path).read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{text!r:.100} is not a ranking; expected rank:FILE with a {RANK} of zoo rank"
        raise UsageError(message, code="plan-value", key="backbones", given=text) from error
    return [row.name for row in record.backbones if row.tier == 1 and not row.control]


def _excludes(rule: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether a run has for every key of a rule one of the rule's values; text may be a glob."""
    for key in rule.keys() - chosen.keys():
        raise UnknownNameError("key of exclude", key, chosen)
    pairs = [(str(getattr(chosen[key], "backbone", chosen[key])), map(str, _listed(rule[key]))) for key in rule]
    return all(any(fnmatch.fnmatchcase(value, each) for each in allowed) for value, allowed in pairs)


def _planned(command: str, chosen: Mapping[str, Any], out: Path) -> PlannedRun:
    subject, dataset, seed = chosen["backbone"], chosen["dataset"], chosen["seed"]
    of = subject if isinstance(subject, PlannedRun) else None
    backbone = of.backbone if of else subject
    known = declared(OPTIONS_OF[command])
    given = {key: chosen[key] for key in chosen.keys() - {"backbone", "dataset"}}
    given |= {"unfreeze": _listed(given["unfreeze"])} if "unfreeze" in given else {}
    options: dict[str, Any] = dict(checked(OPTIONS_OF[command], given))
    of_runs = {key: value for key, value in options.items() if key in declared(EvalOptions)}
    kept = StoredOptions(backbone, dataset, of_runs).to_keep()  # type: ignore[arg-type]
    options = json.loads(json.dumps({**options, **kept.given}, default=str))
    del options["seed"]
    decisive = {
        name: value
        for name, value in options.items()
        if (name == "checkpoint" or known[name][1].stored) and known[name][1].fixed and value != known[name][1].default
    }
    settings = json.dumps([command, of.key if of else backbone, kept.dataset, decisive], sort_keys=True)
    digest, short = hashlib.sha256(settings.encode()).hexdigest()[:8], backbone.replace(":", "-")
    key = f"{'layers-' * (command == 'layers')}{short}-{load_registry().dataset(dataset)[0].name}-s{seed}-{digest}"
    frozen = {name: value for name, value in decisive.items() if name not in _AFTER_FROZEN_PART}
    by_seed = bool(frozen.keys() & _CHOSEN_BY_SEED) or frozen.get("weights") == "random"
    shares = command == "eval" and options.get("cache") != "off" and options.get("unfreeze") != ["*"]
    return PlannedRun(
        key=key,
        command=command,
        backbone=of.folder if of else backbone,
        dataset=kept.dataset or dataset,
        seed=seed,
        options=options,
        folder=str(out / key),
        group=json.dumps([backbone, kept.dataset, frozen, seed if by_seed else None], sort_keys=True) if shares else "",
        data=same_data(of.folder if of else backbone, kept.dataset, options),
        after=of.key if of else None,
    )
