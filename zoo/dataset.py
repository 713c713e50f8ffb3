"""The record of a dataset, and the arguments and results of its loader.

Nothing here imports numpy or torch; a loader imports them when it is called.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic.dataclasses import dataclass

from zoo.fields import STRICT, FactoryPath, HubId, Name, Text
from zoo.image_reader import ImageReader

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How a loader reads images and labels; a dataset names in :attr:`Dataset.options` the columns that it takes.

    ``image_column``, ``label_column`` and ``split_column`` name columns of a table. ``skip_unreadable``: continue
    without the images that cannot be read, and count them.

    >>> ReadOptions.of({"label_column": "kind", "seed": 1}).given
    {'label_column': 'kind'}
    """

    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    skip_unreadable: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ReadOptions:
        """Take the fields of this class out of options; those that are missing or ``None`` keep their defaults."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if values.get(name) is not None})

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


AS_FOUND = ReadOptions()


@dataclasses.dataclass(frozen=True)
class DatasetRequest:
    """The arguments of a loader: the text after the colon of ``name:argument``, ``--data-dir``, and how to read.

    ``reader`` converts the images; a loader passes every opened image file to :meth:`ImageReader.upright`, so that
    images of more than 8 bits are scaled alike, and that zoo can say so.

    >>> DatasetRequest(argument="someone/flowers").data_dir is None
    True
    """

    argument: str | None = None
    data_dir: Path | None = None
    options: ReadOptions = AS_FOUND
    reader: ImageReader = dataclasses.field(default_factory=ImageReader, compare=False)


class ImageFiles(Protocol):
    """Images of any sizes, decoded on access.

    A class that several threads may read at once sets ``concurrent = True``.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> Image:
        """Decode one image; raises :class:`~zoo.errors.DataError`, which names its path, if that fails."""


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """One split: a uint8 array ``(N, H, W)`` or ``(N, H, W, 3)``, or image files; and a class index per image.

    >>> len(ImageSplit(images=[], labels=[]))
    0
    """

    images: np.ndarray[Any, Any] | ImageFiles
    labels: Sequence[int] | np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class LoadedDataset:
    """The result of a loader: the class names in label order, the splits by name, and their source.

    ``revision`` is the version of the source (a Hub commit, a package version), or ``None``. ``warnings`` are lines for
    the user, for example about files that were left out. ``reading`` are lines that say how the data were read, such as
    which folder is which split; ``skipped`` counts the files that were left out, by kind. Both are recorded, and
    records are published, so they name no folder outside of the dataset.

    >>> LoadedDataset(("cat", "dog"), {}, source="a folder").revision is None
    True
    """

    classes: tuple[str, ...]
    splits: dict[str, ImageSplit]
    source: str
    revision: str | None = None
    warnings: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)


DatasetLoader = Callable[[DatasetRequest], LoadedDataset]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Dataset:
    """Everything the harness must know about one dataset.

    ``loader`` is a function that takes a :class:`DatasetRequest` and returns a :class:`LoadedDataset`, or its name
    ``module:function``, which is imported when the dataset is used. ``argument`` describes the argument of a dataset
    that needs one, such as ``imagefolder:PATH``. ``classes`` is ``None`` if only the loader knows them.
    ``evaluation_split`` is the split that a run validates on and reports; for CIFAR-10 that is the test split, as in
    the studies. ``options`` names the columns of :class:`ReadOptions` that the loader takes; others are refused.
    ``data_file``: ``--data-dir`` may also be a file, such as an archive.

    >>> Dataset(name="blobs", title="Blobs", loader="my_package.data:load", classes=None,
    ...         license=None, citation=None).call
    'blobs'
    """

    name: Name
    title: Text
    loader: FactoryPath | DatasetLoader
    classes: tuple[Text, ...] | None
    license: Text | None
    citation: Text | None
    argument: Annotated[str, StringConstraints(pattern=r"^[A-Z/]+$")] | None = None
    hub_id: HubId | None = None
    sizes: dict[Text, Annotated[int, Field(gt=0)]] | None = None
    evaluation_split: Text = "test"
    options: tuple[Literal["image_column", "label_column", "split_column"], ...] = ()
    data_file: bool = False

    @field_validator("classes")
    @classmethod
    def _classes_are_distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < max(2, len(classes)):
            raise ValueError("expected at least 2 classes, each named once, or None if only the loader knows them")
        return classes

    @model_validator(mode="after")
    def _evaluation_split_exists(self) -> Dataset:
        if self.sizes is not None and self.evaluation_split not in self.sizes:
            raise ValueError(f"evaluation_split is {self.evaluation_split!r}, the sizes are of {', '.join(self.sizes)}")
        return self

    def is_path(self, argument: str | None) -> bool:
        """Whether an argument is the path of a file or folder: if it is ``PATH``, or is written as a path.

        >>> hub = Dataset(name="hub", title="Hub", loader="m:f", classes=None, license=None, citation=None,
        ...               argument="OWNER/NAME")
        >>> [hub.is_path(argument) for argument in ("ada/flowers", "./flowers", "~/flowers", "/data/flowers")]
        [False, True, True, True]
        """
        written_as_path = argument is not None and re.match(r"(~|\.{0,2}/|\.{1,2}$)", argument) is not None
        return argument is not None and (self.argument == "PATH" or written_as_path)

    @property
    def call(self) -> str:
        """The name on the command line, with the argument."""
        return f"{self.name}:{self.argument}" if self.argument else self.name
