"""Load image-classification datasets of the Hugging Face Hub through the ``datasets`` library.

If a dataset is cached, this module does not download the dataset. Since version 4, ``datasets`` runs no code of a
dataset.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import PIL.Image
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError, DatasetsError
from datasets.packaged_modules.cache.cache import Cache
from datasets.utils.file_utils import cached_path
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # re-exported without "as"

from zoo.dataset import DatasetRequest, LoadedDataset, ReadOptions
from zoo.errors import DataError, UnknownNameError, UsageError
from zoo.image_reader import ImageReader
from zoo.reachability import why_unreachable
from zoo_plugins.decoding import decode_image
from zoo_plugins.hub_class_names import LabelFile, labels_by_name, read_label_file
from zoo_plugins.labels import checked_split
from zoo_plugins.locations import NotHere, first_found, reach_advice
from zoo_plugins.readable_rows import readable_array

EVALUATION_SPLITS = ("test", "validation", "val", "valid")
Columns = tuple[str, str]


class RowImages:
    """The images of one column of a Hub dataset, decoded to RGB when they are accessed."""

    concurrent = True

    def __init__(self, rows: datasets.Dataset, column: str, where: str, reader: ImageReader) -> None:
        self._rows = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        self._column = column
        self._where = where
        self._reader = reader

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one image to RGB; if decoding fails, raise :class:`~zoo.errors.DataError` with the index."""
        return self.decode(index).convert("RGB")

    def decode(self, index: int) -> PIL.Image.Image:
        """Decode one image to mode ``L`` or ``RGB``."""
        value = self._rows[index][self._column] or {}
        content, path = value.get("bytes"), value.get("path")
        where = f"{self._where}, image {index}" + (f" ({path})" if path else "")

        if content is not None:
            return decode_image(io.BytesIO(content), where, self._reader)
        if not path or not Path(path).is_file():  # datasets itself would download an image whose path is a URL
            raise DataError(
                f"{where} holds neither an image nor the path of a file on this machine",
                code="image-undecodable",
                image=where,
            )
        with Path(path).open("rb") as file:
            return decode_image(file, where, self._reader)


@dataclass(frozen=True)
class HubCopy:
    """A dataset on the Hub, read from the local cache or online.

    ``columns`` are the names of the image and label columns. Without ``columns``, zoo uses the column names in
    ``request``, or else finds the columns by their types. ``classes`` replaces the class names of the Hub dataset,
    because the Hub misspells some names ("cra", "T - shirt / top"). The Hub dataset must have as many classes.

    >>> HubCopy("uoft-cs/cifar10").location
    'Hugging Face Hub uoft-cs/cifar10'
    """

    repo: str
    revision: str | None = None
    columns: Columns | None = None
    classes: tuple[str, ...] | None = None
    request: DatasetRequest = field(default_factory=DatasetRequest)

    @property
    def location(self) -> str:
        """The name of the Hub dataset in errors and run records."""
        return f"Hugging Face Hub {self.repo}" + (f"@{self.revision}" if self.revision else "")

    def cached(self) -> LoadedDataset:
        """Read the copy that ``datasets`` cached on this machine, without using the network."""
        location = f"cache of {self.location} in {datasets.config.HF_DATASETS_CACHE}"
        try:
            with _silenced_clients():
                name = self.repo.split("/")[-1]
                builder = Cache(repo_id=self.repo, dataset_name=name, version="auto", hash="auto")
        except (ValueError, OSError) as error:
            raise NotHere(location, str(error).splitlines()[0]) from error
        if self.revision not in (None, builder.hash):
            raise NotHere(location, f"contains revision {builder.hash}; another or abbreviated revision does not match")
        return self._read(builder)

    def online(self) -> LoadedDataset:
        """Download the current version of the dataset and read it."""
        reason = why_unreachable(huggingface_hub.constants.ENDPOINT)
        if reason:
            raise NotHere(self.location, reason)
        if Path(self.repo).is_dir():  # the datasets library would read this folder instead of the Hub
            raise UsageError(
                f"the working directory has a folder {self.repo}, which the datasets library would read instead of "
                f"{self.location}; change the working directory, or pass --data-dir",
                code="folder-hides-repository",
                path=self.repo,
            )
        try:
            with _silenced_clients():
                builder = datasets.load_dataset_builder(self.repo, revision=self.revision)
                builder.download_and_prepare()
        except DatasetNotFoundError as error:
            raise NotHere(self.location, _first_line(error)) from error
        except (DatasetsError, EmptyDatasetError, ValueError) as error:
            raise DataError(
                f"{self.location} cannot be read: {_first_line(error)}", code="dataset-unreadable", repository=self.repo
            ) from error
        except Exception as error:  # the clients of the Hub raise errors of four packages
            raise NotHere(self.location, _first_line(error)) from error
        if isinstance(builder, Cache):  # datasets used its cache, and ignored the requested revision
            raise NotHere(self.location, "it did not answer")
        return self._read(builder)

    def _read(self, builder: Any) -> LoadedDataset:
        location = f"Hugging Face Hub {self.repo}, configuration {builder.config.name}"
        return read_builder(builder, location, builder.hash, self.columns, self.classes, self.request)


def load(request: DatasetRequest) -> LoadedDataset:
    """Load the Hub dataset ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` from the Hub, its cache or a folder.

    ``--data-dir`` is a folder with the files of the dataset. An argument that is written as a path, such as
    ``./FOLDER``, also names a folder with the files of the dataset.

    The result's split ``test`` is the first of :data:`EVALUATION_SPLITS` that the dataset has. If the dataset has none
    of these splits, the result has only ``train``. Images of equal size become one array.
    """
    argument = request.argument or ""
    if re.match(r"(~|\.{0,2}/|\.{1,2}$)", argument):
        if request.data_dir is not None:
            raise UsageError(
                f"hf:{argument} is already a folder; omit --data-dir {request.data_dir}",
                code="option-unused",
                option="data_dir",
            )
        return _load_folder(Path(argument).expanduser(), None, request)
    repo, revision = parse_argument(argument)
    if request.data_dir is not None:
        return _load_folder(request.data_dir.expanduser(), revision, request)
    hub = HubCopy(repo, revision, request=request)
    return first_found(f"dataset hf:{request.argument}", [hub.cached, hub.online], reach_advice("a copy of its files"))


def parse_argument(argument: str) -> tuple[str, str | None]:
    """Return the repository and the revision in the text ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Raises :class:`~zoo.errors.UsageError` for an invalid repository name.

    >>> parse_argument("someone/flowers@refs/pr/1")
    ('someone/flowers', 'refs/pr/1')
    """
    repo, at, revision = argument.partition("@")
    expected = "expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, such as hf:uoft-cs/cifar10"
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(
            f"hf:{argument} is not the name of a Hub dataset ({_first_line(error)}); {expected}",
            code="repository-name",
            given=argument,
        ) from error
    if repo.count("/") != 1:
        folder = f"; try hf:./{repo} for the folder {repo!r} here" if Path(repo).is_dir() else ""
        raise UsageError(f"hf:{argument} names no owner; {expected}{folder}", code="repository-name", given=argument)
    if at and (not re.fullmatch(r"\w[\w./-]*", revision) or ".." in revision):
        raise UsageError(
            f"hf:{argument} has no valid revision after the @; {expected}", code="repository-name", given=argument
        )
    return repo, revision or None


def read_builder(
    builder: Any,
    location: str,
    revision: str | None,
    columns: Columns | None,
    classes: tuple[str, ...] | None,
    request: DatasetRequest,
) -> LoadedDataset:
    """Read a prepared ``datasets.DatasetBuilder``; the other arguments are the fields of :class:`HubCopy`."""
    try:
        rows = builder.as_dataset()
    except Exception as error:  # a damaged cache raises errors of pyarrow or datasets
        raise DataError(
            f"{location} cannot be read: {_first_line(error)}; delete {builder.cache_dir} to create it again",
            code="dataset-unreadable",
            path=str(builder.cache_dir),
        ) from error
    chosen = _choose_splits(rows, location)
    features = rows["train"].features
    image_column, label_column = columns or _find_columns(features, location, request.options)
    names = _class_names(features, label_column, location)
    if classes is not None and len(classes) != len(names):
        raise DataError(
            f"{location}: {len(names)} classes in column {label_column!r}; expected {len(classes)}",
            code="class-mismatch",
        )
    classes = classes or names
    files, notes = _label_files(builder, label_column)
    labels, reading = labels_by_name(
        {theirs: _labels(rows[theirs], label_column) for theirs in chosen.values()}, files, names, location
    )
    reading += notes
    splits, warnings, skipped = {}, [], 0
    for ours, theirs in chosen.items():
        where = f"{location}, split {theirs}"
        images = RowImages(rows[theirs], image_column, where, request.reader)
        checked = checked_split(images, labels[theirs], classes, where)  # checked first, because decoding takes longer
        splits[ours], left_out = readable_array(images, checked, request.reader, skip=request.options.skip_unreadable)
        skipped += left_out
        if left_out:
            warnings.append(f"skipped {left_out:,} images of split {theirs!r} that cannot be read (--skip-unreadable)")
    renamed = "" if chosen.get("test", "test") == "test" else f" (split test is its split {chosen['test']})"
    unread = [name for name in rows if name not in chosen.values()]
    if unread:
        reading += (f"splits that are not read: {', '.join(unread)}",)
    return LoadedDataset(
        classes,
        splits,
        source=location + renamed,
        revision=revision,
        warnings=tuple(warnings),
        reading=reading,
        skipped={"unreadable images": skipped} if skipped else {},
    )


def _load_folder(folder: Path, revision: str | None, request: DatasetRequest) -> LoadedDataset:
    if revision is not None:
        raise UsageError(
            f"--data-dir {folder} has no revisions to choose from; omit @{revision}",
            code="argument-unused",
            given=revision,
        )
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a folder; expected a copy of a repository, with its data files",
            code="missing-folder",
            path=str(folder),
        )
    try:
        with _silenced_clients():
            # The path must be absolute, because datasets takes a bare name for one of its own builders.
            builder = datasets.load_dataset_builder(str(folder.resolve()))
            builder.download_and_prepare()
    except Exception as error:  # the readers of a dozen formats raise their own errors
        raise DataError(
            f"{folder} cannot be read by the datasets library: {_first_line(error)}",
            code="dataset-unreadable",
            path=str(folder),
        ) from error
    return read_builder(builder, f"folder {folder.resolve()}", None, None, None, request)


def _choose_splits(rows: Any, location: str) -> dict[str, str]:
    if "train" not in rows:
        raise DataError(f"{location}: no split 'train'; it has {sorted(rows)}", code="split-missing", split="train")
    evaluation = next((name for name in EVALUATION_SPLITS if name in rows), None)
    return {"train": "train"} | ({"test": evaluation} if evaluation else {})


def _find_columns(features: Any, location: str, options: ReadOptions) -> Columns:
    for name in (options.image_column, options.label_column):
        if name is not None and name not in features:
            raise UnknownNameError(f"column of {location}", name, features)
    return (
        options.image_column or _only_column(features, datasets.Image, "image", location),
        options.label_column or _only_column(features, datasets.ClassLabel, "label", location),
    )


def _only_column(features: Any, kind: type[Any], word: str, location: str) -> str:
    found: list[str] = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) == 1:
        return found[0]
    listing = ", ".join(f"{name}: {type(feature).__name__}" for name, feature in features.items())
    count = f"{len(found)} {word} columns" if found else f"no {word} column"
    advice = f"; try --{word}-column NAME" if found else ""
    raise DataError(
        f"{location}: {count} of type {kind.__name__}; expected exactly one (columns: {listing}){advice}",
        code="dataset-columns",
    )


def _class_names(features: Any, column: str, location: str) -> tuple[str, ...]:
    if not isinstance(features.get(column), datasets.ClassLabel):
        raise DataError(
            f"{location}: no column {column!r} of type ClassLabel; it has {sorted(features)}", code="dataset-columns"
        )
    return tuple(features[column].names)


def _labels(rows: datasets.Dataset, column: str) -> np.ndarray[Any, Any]:
    return np.array([-1 if label is None else label for label in rows[column][:]], dtype=np.int64)


def _label_files(builder: Any, column: str) -> tuple[dict[str, list[LabelFile]], tuple[str, ...]]:
    """Return the parquet files of each split; if they are not on this machine, return a line for the run record.

    The result contains no files for splits in other formats. Raises :class:`~zoo.errors.DataError` for a damaged file.
    """
    try:
        with _silenced_clients():
            if isinstance(builder, Cache):  # this cache does not name the files, but the Hub client's cache does
                builder = _builder_of_files(builder)
            files = getattr(builder.config, "data_files", None) or {}
            paths = {
                str(split): [Path(cached_path(str(name))) for name in named]
                for split, named in files.items()
                if all(str(name).endswith(".parquet") for name in named)
            }
    except Exception:  # if files are missing or the Hub is unreachable, the clients raise errors of four packages
        return {}, (
            "class numbers are those of the copy that the datasets library cached; its files are not on this machine, "
            "so the class names in them are not compared",
        )
    return {split: [read_label_file(path, column) for path in named] for split, named in paths.items()}, ()


def _builder_of_files(builder: Any) -> Any:
    repo = builder.repo_id.replace("/", "--")
    snapshot = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"datasets--{repo}" / "snapshots" / builder.hash
    return datasets.load_dataset_builder(str(snapshot), name=builder.config.name)


@contextlib.contextmanager
def _silenced_clients() -> Iterator[None]:
    # datasets and huggingface_hub log every retry and every use of the cache, which zoo's errors make superfluous.
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    if isinstance(error, DatasetGenerationError) and error.__cause__:  # this error states its reason only in its cause
        error = error.__cause__
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return f"{type(error).__name__}: {first}"
