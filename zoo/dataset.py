"""Classes for plugins that declare a dataset: its record, and the argument and the result of its loader.

Importing this module imports neither numpy nor torch; loaders import these packages when zoo calls the loaders.
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
    """Options that select how a loader reads images and labels.

    ``image_column``, ``label_column`` and ``split_column`` name columns of a table. :attr:`Dataset.options` lists the
    columns that a dataset accepts. With ``skip_unreadable=True`` the loader skips and counts unreadable images.

    >>> ReadOptions.of({"label_column": "kind", "seed": 1}).given
    {'label_column': 'kind'}
    """

    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    skip_unreadable: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ReadOptions:
        """Create the reading options from a mapping of options; missing options and ``None`` become the defaults."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: values[name] for name in names if values.get(name) is not None})

    @property
    def given(self) -> dict[str, Any]:
        """The names and values of the reading options that differ from the defaults."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


AS_FOUND = ReadOptions()


@dataclasses.dataclass(frozen=True)
class DatasetRequest:
    """What the user asks of a loader: the ``argument`` in ``name:argument``, ``--data-dir`` and the reading options.

    ``reader`` converts images. A loader must pass every opened image file to :meth:`ImageReader.upright`, so
    that zoo scales all images of more than 8 bits in one way, and can report the scaling.

    >>> DatasetRequest(argument="someone/flowers").data_dir is None
    True
    """

    argument: str | None = None
    data_dir: Path | None = None
    options: ReadOptions = AS_FOUND
    reader: ImageReader = dataclasses.field(default_factory=ImageReader, compare=False)


class ImageFiles(Protocol):
    """A sequence of images of different sizes that decodes an image when the image is accessed.

    Set the attribute ``concurrent = True`` if several threads may read images simultaneously.
    """

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> Image:
        """Decode one image; raise :class:`~zoo.errors.DataError` with the image's path if decoding fails."""


@dataclasses.dataclass(frozen=True)
class ImageSplit:
    """One split of a dataset: its images, and one class index for each image.

    The images are a uint8 array ``(N, H, W)`` or ``(N, H, W, 3)``, or a sequence that decodes image files.

    >>> len(ImageSplit(images=[], labels=[]))
    0
    """

    images: np.ndarray[Any, Any] | ImageFiles
    labels: Sequence[int] | np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class LoadedDataset:
    """The result of a loader: the class names in the order of the class indices, the splits by name, and the source.

    ``revision`` is the version of the source, such as a Hub commit or a package version, or ``None``. ``warnings`` are
    lines for the user, for example about skipped files. ``reading`` are lines that describe how the loader read the
    data, such as which folder is which split. ``skipped`` counts the skipped files by kind. Published
    records contain ``reading`` and ``skipped``, so neither may name a folder outside the dataset.

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
    """The record of one dataset: its loader, classes, splits, licence and citation.

    ``loader`` is a function that takes a :class:`DatasetRequest` and returns a :class:`LoadedDataset`. ``loader`` may
    also be the function's name ``module:function``, which zoo imports when the dataset is first used. ``argument``
    describes the required argument of a dataset such as ``imagefolder:PATH``. ``classes`` is ``None`` if the class
    names are known only after loading. ``evaluation_split`` names the split on which runs measure the accuracy after
    every epoch. For CIFAR-10, this split is the test split, as in the published studies. ``options`` lists the columns
    of :class:`ReadOptions` that the loader accepts; zoo refuses other columns. ``data_file=True`` means that
    ``--data-dir`` may name a file, such as an archive.

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
            raise ValueError("expected at least 2 distinct classes, or None if only the loader knows the class names")
        return classes

    @model_validator(mode="after")
    def _evaluation_split_exists(self) -> Dataset:
        if self.sizes is not None and self.evaluation_split not in self.sizes:
            raise ValueError(f"evaluation_split is {self.evaluation_split!r}; expected one of {', '.join(self.sizes)}")
        return self

    def is_path(self, argument: str | None) -> bool:
        """Whether ``argument`` names a file or folder: the dataset takes a ``PATH``, or the argument looks like a path.

        >>> hub = Dataset(name="hub", title="Hub", loader="m:f", classes=None, license=None, citation=None,
        ...               argument="OWNER/NAME")
        >>> [hub.is_path(argument) for argument in ("ada/flowers", "./flowers", "~/flowers", "/data/flowers")]
        [False, True, True, True]
        """
        written_as_path = argument is not None and re.match(r"(~|\.{0,2}/|\.{1,2}$)", argument) is not None
        return argument is not None and (self.argument == "PATH" or written_as_path)

    @property
    def call(self) -> str:
        """The dataset as typed on the command line: its name, and a placeholder if the dataset takes an argument."""
        return f"{self.name}:{self.argument}" if self.argument else self.name
