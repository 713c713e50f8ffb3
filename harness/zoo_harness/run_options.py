"""What a user asked of ``zoo eval`` or ``zoo train``, kept beside the run so that it can be resumed from any folder.

The file may hold folders of this machine, so it is never published.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from pydantic import ValidationError

from zoo.backbone import Training
from zoo.errors import UsageError
from zoo_harness.atomic import write_text
from zoo_harness.choices import apply_overrides
from zoo_harness.run_record import Record, read_run

OPTIONS = "options.json"


class RunOptions(Record):
    """The options that can change a result, by their names on the command line; ``None`` for what the recipe says."""

    from_scratch: bool = False
    name: str | None = None
    dataset: str | None = None
    recipe: str = "default"
    weights: str = "pretrained"
    unfreeze: tuple[str, ...] | None = None
    layer: str | None = None
    data_dir: Path | None = None
    per_class: int | None = None
    limit: int | None = None
    val_fraction: float | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    milestones: str | None = None
    decay: float | None = None
    warmup_epochs: float | None = None
    label_smoothing: float | None = None
    class_weights: str | None = None
    augment: str | None = None
    views: int | None = None
    patience: int | None = None
    keep: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    deterministic: bool = False
    compile: bool = False
    cache_dtype: str = "exact"
    predict: str = "cls"
    layer_curve: bool = True

    @property
    def training(self) -> dict[str, object]:
        """Those that stand in place of the recipe's training settings."""
        chosen = {field.name: getattr(self, field.name, None) for field in fields(Training)}
        return {name: value for name, value in chosen.items() if value is not None}

    def anchored(self) -> RunOptions:
        """The same with whole paths, so that they mean the same from another folder."""
        dataset, colon, argument = (self.dataset or "").partition(":")
        changes: dict[str, object] = {}
        if self.data_dir is not None:
            changes["data_dir"] = self.data_dir.expanduser().absolute()
        if self.weights not in ("pretrained", "random"):
            changes["weights"] = str(Path(self.weights).expanduser().absolute())
        if colon and Path(argument).expanduser().exists():
            changes["dataset"] = f"{dataset}:{Path(argument).expanduser().absolute()}"
        return self.model_copy(update=changes)

    def write(self, directory: Path) -> None:
        """Keep the options in a run directory."""
        write_text(directory / OPTIONS, self.anchored().model_dump_json(indent=2, exclude_defaults=True) + "\n")


def read_options(directory: Path) -> RunOptions:
    """The options of the run in a directory.

    Raises :class:`~zoo.errors.UsageError` where there is none.
    """
    path = directory / OPTIONS
    try:
        return RunOptions.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--resume {directory} is not a run that can be resumed: {path}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise UsageError(f"{path} was written by another version: {where}: {fault['msg']}") from error


def resumed(directory: Path, asked: RunOptions, given: Iterable[str]) -> RunOptions:
    """The options of the run to resume; of ``asked``, those that were ``given`` must be the same.

    Raises :class:`~zoo.errors.UsageError` with every one that differs.
    """
    kept, whole = read_options(directory), asked.anchored()
    differing = [
        f"{_as_given(name, getattr(asked, name))} (the run has {_as_kept(name, kept)})"
        for name in given
        if getattr(whole, name) != getattr(kept, name) and not _is_the_recipes(name, asked, directory)
    ]
    if differing:
        told = ", ".join(differing)
        raise UsageError(f"--resume {directory}: settings differ: {told}; leave them out, or start anew")
    return kept


def _is_the_recipes(name: str, asked: RunOptions, directory: Path) -> bool:
    """Whether a training setting is what the run has without having been given it."""
    if name not in asked.training:
        return False
    try:
        has = read_run(directory).settings.training
    except UsageError:  # killed before its record was written
        return False
    return apply_overrides(has, {name: asked.training[name]}) == has


def _as_given(name: str, value: object) -> str:
    option = name.replace("_", "-")
    if name == "name":
        return str(value)
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option} {value}"


def _as_kept(name: str, kept: RunOptions) -> str:
    value = getattr(kept, name)
    return "the recipe's" if value is None and name in _OF_RECIPES else str(value)


_OF_RECIPES = frozenset(field.name for field in fields(Training))
