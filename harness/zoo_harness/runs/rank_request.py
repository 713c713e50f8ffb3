"""Check a request to rank backbones before torch is imported and before anything is written or fetched."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import UsageError, check_choice
from zoo.registry import load_registry
from zoo_harness.models.weight_source import find_local
from zoo_harness.records import option_checks
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import RankOptions
from zoo_harness.runs.directory import RUNS, check_out
from zoo_harness.runs.request import DataRequest, choose_data

if TYPE_CHECKING:
    from zoo_harness.ranking.scores import RankDefinition


@dataclass(frozen=True, kw_only=True)
class RankRequest(DataRequest):
    """Backbones to rank, the data to rank them on, and all options; ``controls``: add raw pixels and random weights."""

    backbones: tuple[Backbone, ...]
    controls: bool
    max_parameters: int | None
    scores: tuple[RankDefinition, ...]
    options: RankOptions
    command: tuple[str, ...]


def check_rank(
    dataset: str | Dataset, backbones: Sequence[str | Backbone], given: RankOptions, command: tuple[str, ...]
) -> RankRequest:
    """Resolve names and globs and check options; raises a :class:`~zoo.errors.ZooError` for any mistake in them.

    Without backbones, those whose weights are on this machine are ranked, beside two controls.
    """
    options = with_defaults(RankOptions, given)
    option_checks.check_device(options["device"], options["precision"])
    values: Mapping[str, Any] = {**options, "limit": options["images"], "val_fraction": None}
    data = choose_data(dataset, values)
    check_out(options["out"], default=RUNS)
    from zoo_harness.ranking.scores import choose_scores  # imports numpy

    scores = choose_scores(options["scores"])
    shares = [score.key for score in scores if score.share]
    check_choice("--sort", options["sort"], shares)
    found = tuple(_licensed(_resolved(backbones), options["license"]))
    if not found:
        raise UsageError("no backbone is left to rank; check --license", code="nothing-to-rank")
    return RankRequest(
        **vars(data),
        backbones=found,
        max_parameters=_number(options["max_parameters"]),
        controls=not backbones,
        scores=scores,
        options=options,
        command=command,
    )


def _number(text: str | None) -> int | None:
    """Return the number that text such as ``30M`` means.

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


def _resolved(backbones: Sequence[str | Backbone]) -> list[Backbone]:
    registry = load_registry()
    if not backbones:
        return [each for each in registry.backbones.values() if each.weights.kind != "random" and find_local(each)]
    found: dict[str, Backbone] = {}
    for each in backbones:
        records = [each] if isinstance(each, Backbone) else map(registry.backbone, registry.backbone_names(each))
        found |= {record.name: record for record in records}
    return list(found.values())


def _licensed(backbones: Sequence[Backbone], licences: Sequence[str] | None) -> list[Backbone]:
    if not licences:
        return list(backbones)
    return [each for each in backbones if any(fnmatch.fnmatch(each.license or "unknown", one) for one in licences)]
