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
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.errors import UsageError, near_misses
from zoo.registry import load_registry
from zoo_harness.records.option import checked, declared
from zoo_harness.records.option_checks import TRAINING_OPTIONS
from zoo_harness.records.options import DataOptions, EvalOptions, LayersOptions, ScoringOptions, TrainOptions
from zoo_harness.records.rank import RankRecord
from zoo_harness.records.run import RUN
from zoo_harness.records.stored_options import StoredOptions
from zoo_harness.runs.directory import RUNS

OPTIONS_OF: dict[str, type] = {"eval": EvalOptions, "train": TrainOptions, "layers": LayersOptions}
PRODUCTS = {"eval": RUN, "train": RUN, "layers": "layers.json"}
"""The file that shows that a command has begun, or in the case of ``layers``, that it has finished."""

_OF_PLAN = {"out", "next", "runs"}
_NOT_IN_PLANS = {"out", "resume", "checkpoint", "epoch", "recipe", "seed"}  # the sweep sets these itself
# Options that leave the outputs of the frozen layers as they are, and with them the key of the cache.
_OF_NO_FROZEN_PART = (TRAINING_OPTIONS - {"augment", "views"}) | declared(ScoringOptions).keys()
_CHOSEN_BY_SEED = {"per_class", "fraction", "eval_fraction", "val_fraction", "views"}


class _Part(BaseModel):
    """The keys of a table of runs that are not options of its command; ``of`` names the part whose runs are read."""

    model_config = ConfigDict(extra="ignore", strict=True)

    command: Literal["eval", "train", "layers"] = "eval"
    backbones: list[str] = []
    of: str | None = None
    datasets: list[str] = []
    recipes: list[str] = []
    seeds: list[int] = [0]
    exclude: list[dict[str, Any]] = []


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, in values that JSON can hold.

    ``key`` is the name of its folder. ``backbone`` is a name, or for ``layers`` of a run the folder of that run, whose
    key is ``after``. ``group`` is equal for runs that may share the cached outputs of their frozen layers, and empty
    for a run that shares nothing. ``data`` is equal for runs that read the same part of the data.
    """

    key: str
    command: str
    backbone: str
    dataset: str
    seed: int
    options: dict[str, Any]
    folder: str
    group: str = ""
    data: str = ""
    after: str | None = None

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return Path(self.folder)

    @property
    def home(self) -> Path:
        """The folder of the sweep's own files, beside the folders of the runs."""
        return self.path.parent / ".sweep"


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in the order to start them, its folder, and the commands to type when they are finished."""

    runs: tuple[PlannedRun, ...]
    out: Path
    next: tuple[str, ...] = ()


def read_plan(source: str | Path | Mapping[str, Any] | None, changes: Mapping[str, Any], out: Path | None) -> Plan:
    """Read a plan from a TOML file, or take it as a mapping; ``changes`` are merged into it.

    A changed key at the top replaces the key in every part. Raises :class:`~zoo.errors.UsageError` for an unknown key,
    a value of a wrong type, an unknown name, and a plan without runs.
    """
    name = Path(source).stem if isinstance(source, str | Path) else "sweep"
    table = dict(_parsed(Path(source)) if isinstance(source, str | Path) else source or {})
    parts = {title: dict(part) for title, part in table.pop("runs", {"": {}}).items()}
    for part in parts.values():
        for key in changes.keys() & part.keys():
            del part[key]
    table = _merged({**table, "runs": parts}, changes)
    parts = table.pop("runs")
    _refuse_unknown(table, parts)
    folder = (out or Path(table.get("out", RUNS / name))).expanduser().absolute()
    runs: dict[str, dict[str, PlannedRun]] = {}
    for title, part in parts.items():
        options = OPTIONS_OF[part.get("command", table.get("command", "eval"))]
        known = declared(options).keys() | _Part.model_fields.keys()
        top = {key: value for key, value in table.items() if key in known}
        runs[title] = {run.key: run for run in _runs({**top, **part}, folder, runs)}
    every = {key: run for part in runs.values() for key, run in part.items()}
    if not every:
        raise UsageError("the plan has no runs; give backbones and datasets, or change exclude", code="plan-empty")
    return Plan(tuple(_grouped(every.values())), folder, tuple(_listed(table.get("next", []))))


def changes_of(lines: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` texts as lines of TOML; a value that is no TOML is text.

    >>> changes_of(["epochs=[1, 2]", "runs.scratch.weights=random"])
    {'epochs': [1, 2], 'runs': {'scratch': {'weights': 'random'}}}
    """
    found: dict[str, Any] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        try:
            change = tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            try:
                change = tomllib.loads(f"{key}={json.dumps(value)}")
            except tomllib.TOMLDecodeError:
                equals = ""
        if not equals:
            message = f"--set is wrong: {line!r:.100}; expected KEY=VALUE, such as epochs=5 or seeds=[0,1,2]"
            raise UsageError(message, code="option-value", option="set", given=line)
        found = _merged(found, change)
    return found


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        message = f"the plan cannot be read: {str(path)!r}: {error.strerror}; expected a TOML file"
        raise UsageError(message, code="missing-file", path=path) from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise UsageError(f"the plan {str(path)!r} is not TOML: {error}", code="plan-not-toml", path=path) from error


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(table[key], changes[key]) for key in table.keys() & changes if isinstance(table[key], dict)}
    return {**table, **changes, **both}


def _refuse_unknown(table: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a key that no command of the plan has, and at the top of one part a key that its command lacks."""
    for part in parts.values():
        command = part.get("command", table.get("command", "eval"))
        if command not in OPTIONS_OF:
            message = f"the command of a plan is wrong: {command!r:.80}; expected one of {', '.join(OPTIONS_OF)}"
            raise UsageError(message, code="plan-value", given=command)
        known = (declared(OPTIONS_OF[command]).keys() - _NOT_IN_PLANS) | _Part.model_fields.keys()
        at_top = set().union(*(declared(each).keys() for each in OPTIONS_OF.values())) - _NOT_IN_PLANS
        for keys, allowed in ((part, known), (table, known | at_top | _OF_PLAN)):
            for key in keys.keys() - allowed:
                near = near_misses(key, allowed, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected an option of zoo {command}, or one of "
                hint += "" if near else ", ".join(_Part.model_fields)
                raise UsageError(f"unknown key in the plan: {key!r:.80}; {hint}", code="plan-key", key=key, near=near)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _runs(table: Mapping[str, Any], out: Path, parts: Mapping[str, Mapping[str, PlannedRun]]) -> Iterator[PlannedRun]:
    lists = {
        key: _listed(value) for key, value in table.items() if key in ("backbones", "datasets", "recipes", "seeds")
    }
    try:
        part = _Part.model_validate({**table, **lists})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key, message = fault["loc"][0], fault["msg"]
        raise UsageError(f"{key} in the plan is wrong: {message}", code="plan-value", key=key) from error
    if part.of is not None and part.of not in parts:
        message = f"of = {part.of!r:.80} names no earlier table of runs; expected one of {', '.join(parts) or 'none'}"
        raise UsageError(message, code="plan-value", key="of")
    names = list(dict.fromkeys(itertools.chain.from_iterable(map(_backbones, part.backbones))))
    first = parts[part.of].values() if part.of is not None else [load_registry().backbone(name).name for name in names]
    recipes = {"recipe": part.recipes} if part.recipes else {}
    axes = {"backbone": list(first), "dataset": part.datasets, **recipes, "seed": part.seeds}
    axes |= {key: _listed(value) for key, value in table.items() if key not in _Part.model_fields}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        backbone = chosen["backbone"]
        chosen["backbone"] = backbone.backbone if isinstance(backbone, PlannedRun) else backbone
        if not any(_excludes(rule, chosen) for rule in part.exclude):
            yield _planned(part.command, chosen, out, backbone if isinstance(backbone, PlannedRun) else None)


def _backbones(text: str) -> Sequence[str]:
    """Return the backbones of a name or glob, or for ``rank:FILE`` those of the best tier of a ranking."""
    if not text.startswith("rank:"):
        return load_registry().backbone_names(text)
    path = Path(text.removeprefix("rank:")).expanduser()
    try:
        record = RankRecord.model_validate_json((path / "rank.json" if path.is_dir() else path).read_bytes())
    except (OSError, ValidationError) as error:
        message = (
            f"{text!r:.100} is no ranking: {str(error).splitlines()[0]}; expected rank:FILE, a rank.json of zoo rank"
        )
        raise UsageError(message, code="plan-value", key="backbones", given=text) from error
    return [row.name for row in record.backbones if row.tier == 1 and not row.control]


def _excludes(rule: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Whether every key of a rule has one of the rule's values; text may be a glob."""
    if unknown := rule.keys() - chosen.keys():
        message = f"exclude in the plan is wrong: {sorted(unknown)[0]!r:.80}; expected {', '.join(chosen)}"
        raise UsageError(message, code="plan-key", key=sorted(unknown)[0])
    return all(
        any(
            value == each or (isinstance(each, str) and fnmatch.fnmatchcase(str(value), each))
            for each in _listed(given)
        )
        for value, given in ((chosen[key], rule[key]) for key in rule)
    )


def _planned(command: str, chosen: Mapping[str, Any], out: Path, of: PlannedRun | None) -> PlannedRun:
    backbone, dataset, seed = chosen["backbone"], chosen["dataset"], chosen["seed"]
    known = declared(OPTIONS_OF[command])
    given = {key: value for key, value in chosen.items() if key not in ("backbone", "dataset")}
    kinds = {key: [value] if key == "unfreeze" and isinstance(value, str) else value for key, value in given.items()}
    options: dict[str, Any] = dict(checked(OPTIONS_OF[command], kinds))
    of_runs = {key: value for key, value in options.items() if key in declared(EvalOptions)}
    kept = StoredOptions(backbone, dataset, of_runs).to_keep()  # type: ignore[arg-type]
    options = json.loads(json.dumps({**options, **kept.given}, default=str))
    name = load_registry().dataset(dataset)[0].name
    del options["seed"]
    decisive = {
        key: value
        for key, value in options.items()
        if known[key][1].stored and known[key][1].fixed and value != known[key][1].default
    }
    settings = [command, of.key if of else backbone, kept.dataset, decisive]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    key = f"{'layers-' if command == 'layers' else ''}{backbone.replace(':', '-')}-{name}-s{seed}-{digest}"
    frozen = {name: value for name, value in decisive.items() if name not in _OF_NO_FROZEN_PART}
    by_seed = frozen.keys() & _CHOSEN_BY_SEED or frozen.get("weights") == "random"
    shares = command == "eval" and options.get("cache") != "off" and options.get("unfreeze") != ["*"]
    data = {name: value for name, value in decisive.items() if name in declared(DataOptions)}
    return PlannedRun(
        key=key,
        command=command,
        backbone=of.folder if of else backbone,
        dataset=kept.dataset or dataset,
        seed=seed,
        options=options,
        folder=str(out / key),
        group=json.dumps([backbone, kept.dataset, frozen, by_seed and seed], sort_keys=True) if shares else "",
        data=json.dumps([command, backbone, kept.dataset, data], sort_keys=True),
        after=of.key if of else None,
    )


def _grouped(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Return the runs in order, those that share a frozen part beside each other."""
    first: dict[str, int] = {}
    for number, run in enumerate(runs := list(runs)):
        first.setdefault(run.group or run.key, number)
    return sorted(runs, key=lambda run: first[run.group or run.key])
