"""Read the plan of a sweep and list its runs: every combination of backbones, datasets, recipes, seeds and options.

A plan may have several tables ``[runs.NAME]``. A key at the top of the plan applies to each table whose command knows
the key. This module does not import torch.
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
from zoo_harness.records.options import EvalOptions, LayersOptions, ScoringOptions, TrainOptions
from zoo_harness.records.rank import RANK, RankRecord
from zoo_harness.records.stored_options import StoredOptions
from zoo_harness.runs.directory import RUNS

OPTIONS_OF: dict[str, type] = {"eval": EvalOptions, "train": TrainOptions, "layers": LayersOptions}
AXES = ("backbones", "datasets", "recipes", "seeds")
_SET_BY_SWEEP = {"out", "resume", "recipe", "seed"}
_SET_BY_SCORED_RUN = {"weights", "input_size", "mean", "std", "normalization"}
# These options change neither the frozen part of a network nor its inputs.
_AFTER_FROZEN_PART = (TRAINING_OPTIONS - {"augment", "views"}) | declared(ScoringOptions).keys()
_RANDOM_OPTIONS = {"per_class", "fraction", "eval_fraction", "val_fraction", "views"}


class _Table(BaseModel):
    """The keys of a table of runs that are not options of its command; ``of`` names the table of the scored runs."""

    command: str = "eval"
    of: str | None = None
    backbones: list[str] = []
    datasets: list[str] = []
    recipes: list[str] = []
    seeds: list[int] = [0]
    exclude: list[dict[str, Any]] = []


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, with values that JSON can represent.

    ``key`` is the name of the run's folder. ``backbone`` is a name; if the layers of another run are scored, it is the
    folder of that run, and ``depends_on`` is the key of that run. Runs with the same ``group`` can share the cached
    outputs of their frozen layers; a run with an empty ``group`` shares nothing.
    """

    key: str
    command: str
    backbone: str
    dataset: str
    seed: int
    options: dict[str, Any]
    folder: str
    group: str
    depends_on: str | None = None

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return Path(self.folder)


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep in the order in which they start, the folder of the sweep, and the commands to type next."""

    runs: tuple[PlannedRun, ...]
    out: Path
    next: tuple[str, ...]


def read_plan(source: str | Path | Mapping[str, Any] | None, changes: Mapping[str, Any], out: Path | None) -> Plan:
    """Read a plan from a TOML file or a mapping, and apply changes to it.

    A changed key at the top of the plan replaces the key in every table. Raises :class:`~zoo.errors.UsageError` for an
    unknown key, a value of a wrong type, an unknown name, or a plan without runs.
    """
    name = Path(source).stem if isinstance(source, str | Path) else "sweep"
    plan = dict(_parsed(Path(source)) if isinstance(source, str | Path) else source or {})
    tables = {
        key: {option: value for option, value in table.items() if option not in changes}
        for key, table in plan.get("runs", {"": {}}).items()
    }
    plan = _merged({"out": RUNS / name, "next": [], **plan, "runs": tables}, changes)
    folder, following, tables = (plan.pop(key) for key in ("out", "next", "runs"))
    folder = Path(out or folder).expanduser().absolute()
    known = {key: _known_keys(table, plan) for key, table in tables.items()}
    _check_keys(plan, tables, known)
    runs: dict[str, list[PlannedRun]] = {}
    for key, table in tables.items():
        own = known[key] - (_SET_BY_SCORED_RUN if "of" in table else set())
        runs[key] = list(_runs({**{name: plan[name] for name in plan.keys() & own}, **table}, folder, runs))
    every = {run.key: run for part in runs.values() for run in part}
    if not every:
        raise UsageError("the plan has no runs; give backbones and datasets, or change exclude", code="plan-empty")
    groups = {name: number for number, name in enumerate(dict.fromkeys(map(_group_or_key, every.values())))}
    in_order = sorted(every.values(), key=lambda run: groups[_group_or_key(run)])
    return Plan(tuple(in_order), folder, tuple(_as_list(following)))


def changes_of(lines: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` texts as lines of TOML; a value that is not valid TOML is a text.

    >>> changes_of(["epochs=[1, 2]", "runs.scratch.weights=random"])
    {'epochs': [1, 2], 'runs': {'scratch': {'weights': 'random'}}}
    """
    changes: dict[str, Any] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        parsed = (_toml(line) or _toml(f"{key}={json.dumps(value)}")) if equals else {}
        if not parsed:
            message = f"--set is wrong: {line!r:.100}; expected KEY=VALUE, such as epochs=5 or seeds=[0,1,2]"
            raise UsageError(message, code="option-value", option="set", given=line)
        changes = _merged(changes, parsed)
    return changes


def _toml(line: str) -> dict[str, Any]:
    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return {}


def changes_results(command: str, name: str) -> bool:
    """Whether an option of a command can change the results of a run; such an option is in the digest of the key."""
    option = declared(OPTIONS_OF[command])[name][1]
    return option.fixed and (option.stored or name == "checkpoint")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        message = f"the plan cannot be read: {str(path)!r}: {error.strerror}; expected a TOML file"
        raise UsageError(message, code="missing-file", path=path) from error
    except ValueError as error:  # invalid TOML or UTF-8
        raise UsageError(f"the plan {str(path)!r} is not TOML: {error}", code="plan-not-toml", path=path) from error


def _merged(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with changed keys; tables within the table are merged and not replaced."""
    both = {key: _merged(table[key], changes[key]) for key in table.keys() & changes if isinstance(table[key], dict)}
    return {**table, **changes, **both}


def _known_keys(table: Mapping[str, Any], plan: Mapping[str, Any]) -> set[str]:
    command = check_choice("command", table.get("command", plan.get("command", "eval")), tuple(OPTIONS_OF))
    not_for = {"eval": {"of"}, "train": {"of", "recipes"}, "layers": {"recipes"}}
    return (declared(OPTIONS_OF[command]).keys() - _SET_BY_SWEEP) | (_Table.model_fields.keys() - not_for[command])


def _check_keys(
    plan: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]], known: Mapping[str, set[str]]
) -> None:
    at_top = {"out", "next", "runs"}.union(*known.values())
    for table, expected in [(plan, at_top), *((tables[name], known[name]) for name in tables)]:
        for key in table.keys() - expected:
            raise UnknownNameError("key of a plan", key, expected)


def _group_or_key(run: PlannedRun) -> str:
    return run.group or run.key


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _runs(table: Mapping[str, Any], out: Path, tables: Mapping[str, Sequence[PlannedRun]]) -> Iterator[PlannedRun]:
    """Yield the runs of one table; ``tables`` has the runs of the earlier tables."""
    texts = {key: [each.strip() for each in table[key].split(",")] for key in AXES if isinstance(table.get(key), str)}
    try:
        part = _Table.model_validate({**table, **texts})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        message = f"{fault['loc'][0]} in the plan is wrong: {fault['msg']}; given {fault['input']!r:.80}"
        raise UsageError(message, code="plan-value", key=fault["loc"][0]) from error
    if part.of is not None and part.of not in tables:
        raise UnknownNameError("earlier table of runs", part.of, tables)
    names = dict.fromkeys(name for text in part.backbones for name in _backbones(text))
    networks = tables[part.of] if part.of is not None else [load_registry().backbone(name).name for name in names]
    axes: dict[str, Sequence[Any]] = {"backbone": networks, "dataset": part.datasets, "seed": part.seeds}
    axes |= {"recipe": part.recipes} if part.recipes else {}
    axes |= {key: _as_list(value) for key, value in table.items() if key not in _Table.model_fields}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        if not any(_matches(chosen, rule) for rule in part.exclude):
            yield _planned(part.command, chosen, out)


def _backbones(text: str) -> Sequence[str]:
    """Return the backbones that match a name or glob, or for ``rank:FILE`` the backbones in the best tier."""
    if not text.startswith("rank:"):
        return load_registry().backbone_names(text)
    path = Path(text.removeprefix("rank:")).expanduser()
    try:
        record = RankRecord.model_validate_json((path / RANK if path.is_dir() else path).read_bytes())
    except (OSError, ValidationError) as error:
        message = f"{text!r:.100} is not a ranking; expected rank:FILE with a {RANK} of zoo rank"
        raise UsageError(message, code="plan-value", key="backbones", given=text) from error
    return [row.name for row in record.backbones if row.tier == 1 and not row.control]


def _matches(chosen: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    """Whether a combination has one of the allowed values for every key of a rule of ``exclude``; texts are globs."""
    for key in rule.keys() - chosen.keys():
        raise UnknownNameError("key of exclude", key, chosen)
    pairs = [(str(getattr(chosen[key], "backbone", chosen[key])), map(str, _as_list(rule[key]))) for key in rule]
    return all(any(fnmatch.fnmatchcase(value, each) for each in allowed) for value, allowed in pairs)


def _planned(command: str, chosen: Mapping[str, Any], out: Path) -> PlannedRun:
    """Return the run of one combination; ``chosen["backbone"]`` may be another run whose layers are scored."""
    network, dataset, seed = chosen["backbone"], chosen["dataset"], chosen["seed"]
    scored = network if isinstance(network, PlannedRun) else None
    backbone = scored.backbone if scored else network
    given = {key: value for key, value in chosen.items() if key not in ("backbone", "dataset")}
    given |= {"unfreeze": _as_list(given["unfreeze"])} if "unfreeze" in given else {}
    options: dict[str, Any] = dict(checked(OPTIONS_OF[command], given))
    del options["seed"]
    of_eval: Any = {key: value for key, value in options.items() if key in declared(EvalOptions)}
    stored = StoredOptions(backbone, dataset, of_eval).to_keep()  # with absolute paths
    options = json.loads(json.dumps({**options, **stored.given}, default=str))
    known = declared(OPTIONS_OF[command])
    decisive = {
        name: value
        for name, value in options.items()
        if changes_results(command, name) and value != known[name][1].default
    }
    settings = [command, scored.key if scored else backbone, stored.dataset, decisive]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    names = [backbone.replace(":", "-"), load_registry().dataset(dataset)[0].name, f"s{seed}", digest]
    key = "-".join(["layers", *names] if command == "layers" else names)
    frozen = {name: value for name, value in decisive.items() if name not in _AFTER_FROZEN_PART}
    random = bool(frozen.keys() & _RANDOM_OPTIONS) or frozen.get("weights") == "random"
    caches = command == "eval" and options.get("cache") != "off" and options.get("unfreeze") != ["*"]
    group = json.dumps([backbone, stored.dataset, frozen, seed if random else None], sort_keys=True) if caches else ""
    return PlannedRun(
        key=key,
        command=command,
        backbone=scored.folder if scored else backbone,
        dataset=stored.dataset or dataset,
        seed=seed,
        options=options,
        folder=str(out / key),
        group=group,
        depends_on=scored.key if scored else None,
    )
