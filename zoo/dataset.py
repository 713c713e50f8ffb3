"""The record of a data set, and the arguments and results of its loader.

Nothing here imports numpy or torch; a loader imports them when it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic.dataclasses import dataclass

from zoo.fields import STRICT, FactoryPath, HubId, Name, Text

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


@dataclasses.dataclass(frozen=True)
class DatasetRequest:
    """The arguments of a loader: the text after the colon of ``name:argument``, and ``--data-dir``.

    >>> DatasetRequest(argument="someone/flowers").data_dir is None
    True
    """

    argument: str | None = None
    data_dir: Path | None = None


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
    the user, for example about files that were left out.

    >>> LoadedDataset(("cat", "dog"), {}, source="a folder").revision is None
    True
    """

    classes: tuple[str, ...]
    splits: dict[str, ImageSplit]
    source: str
    revision: str | None = None
    warnings: tuple[str, ...] = ()


DatasetLoader = Callable[[DatasetRequest], LoadedDataset]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Dataset:
    """Everything the harness must know about one data set.

    ``loader`` is a function that takes a :class:`DatasetRequest` and returns a :class:`LoadedDataset`, or its name
    ``module:function``, which is imported when the data set is used. ``argument`` describes the argument of a data set
    that needs one, such as ``imagefolder:PATH``. ``classes`` is ``None`` if only the loader knows them.
    ``evaluation_split`` is the split that a run validates on and reports; for CIFAR-10 that is the test split, as in
    the studies.

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

    @property
    def call(self) -> str:
        """The name on the command line, with the argument."""
        return f"{self.name}:{self.argument}" if self.argument else self.name
