"""What a user asked of ``zoo eval`` or ``zoo train``, kept beside the run so that it can be resumed from any folder.

The file may hold folders of this machine, so it is never published.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from pydantic import ValidationError

from zoo.backbone import Training
from zoo.errors import UsageError
from zoo_harness.records.run import Record
from zoo_harness.util.atomic_files import write_text

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
