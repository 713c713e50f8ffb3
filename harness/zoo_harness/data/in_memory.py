"""Create a zoo dataset from image arrays, from lists of images, or from a torch dataset."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from zoo.dataset import Dataset, DatasetRequest, ImageFiles, ImageSplit, LoadedDataset
from zoo.errors import DataError, UsageError, near_misses, shortened
from zoo.picture import as_one_array
from zoo.registry import load_registry
from zoo_harness.data.class_coverage import check_training_classes, classes_not_in_train
from zoo_harness.data.image_input import Pixels, advice_for_shape, check_uint8, one_image
from zoo_harness.records.run import IN_MEMORY

_READ_TWICE = 8  # images that are read twice, to detect random transforms


class MapDataset(Protocol):
    """Define the interface of a map-style torch dataset, whose items are pairs of an image and a label."""

    def __len__(self) -> int:
        """Return the number of items."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one image and its label."""


MemoryImages: TypeAlias = "NDArray[np.uint8] | Tensor | Sequence[Pixels] | MapDataset"
MemoryLabels: TypeAlias = "Sequence[int] | Sequence[str] | NDArray[Any] | Tensor"
Label: TypeAlias = "int | str"


def in_memory(
    images: MemoryImages,
    labels: MemoryLabels | None = None,
    *,
    classes: Sequence[str] | None = None,
    test: tuple[MemoryImages, MemoryLabels] | MapDataset | None = None,
    name: str = "in_memory",
    title: str | None = None,
    license: str | None = None,  # noqa: A002 - named after the field of Dataset
) -> Dataset:
    """Create a dataset from images in memory; every function that takes a dataset accepts the result.

    ``images`` has one of three forms:

    - a uint8 array or tensor ``(N, H, W)`` or ``(N, H, W, 3)``;
    - a sequence of images of any sizes: PIL images, uint8 arrays ``(H, W)`` or ``(H, W, 3)``, or tensors;
    - a map-style torch dataset, whose items are pairs of such an image and a label.

    A floating-point tensor ``(3, H, W)`` with values from 0 to 1 is also accepted as one image of a sequence or torch
    dataset. The values are multiplied by 255 and rounded.

    ``labels``: one label for each image, either an index into ``classes`` or a class name. Omit ``labels`` for a torch
    dataset. ``classes``: the class names in label order. The default is the class names of the torch dataset, or the
    sorted labels that occur. ``test``: the test split, either a pair ``(images, labels)`` or a torch dataset. Without
    ``test``, a training run needs the option ``val_fraction``.

    Images are neither copied nor written to disk. A run reads the images when it starts. If pixels change after the
    call of ``in_memory``, a run raises an error, because the run record would then describe other images. This check
    covers arrays and lists, but not torch datasets. Raises :class:`~zoo.errors.DataError` or
    :class:`~zoo.errors.UsageError` for invalid images, labels, classes or names.

    >>> data = in_memory(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"])
    >>> data.name, data.classes
    ('in_memory', ('cat', 'dog'))
    """
    train = _Split(images, labels)
    given = train.classes if classes is None else classes
    names, indices = _classes_of(train.labels) if given is None else _named_classes(given)
    splits = {"train": (train, train.encoded(indices))}
    if test is not None:
        is_pair = isinstance(test, tuple) and len(test) == 2
        tested = _Split(test[0], test[1], "test ") if is_pair else _Split(test, None, "test ")
        if classes is None and tested.classes not in (None, names):
            raise DataError(
                f"classes of test are wrong: {shortened(tested.classes)}; expected {shortened(names)}",
                code="class-mismatch",
            )
        if given is None:
            _refuse_untrained(tested.labels, train.labels)
        splits["test"] = (tested, tested.encoded(indices))
    check_training_classes({split: encoded for split, (_found, encoded) in splits.items()}, names, train.source)

    def load(request: DatasetRequest) -> LoadedDataset:
        if request.data_dir is not None:
            raise UsageError(
                f"data_dir is for datasets on disk: {name!r} is in memory", code="option-unused", option="data_dir"
            )
        read = {split: ImageSplit(found.images.read(), encoded) for split, (found, encoded) in splits.items()}
        return LoadedDataset(names, read, source=train.source)

    title = title if title is not None else "Images in memory" if name == "in_memory" else name
    try:
        dataset = Dataset(name=name, title=title, loader=load, classes=names, license=license, citation=None)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        argument = str(fault["loc"][0])
        message = f"{argument} is wrong: {shortened(fault['input'])}: {fault['msg']}"
        raise UsageError(message, code="name", argument=argument) from error
    if name in load_registry().datasets:
        raise UsageError(
            f"name is taken by a declared dataset: {name!r}; expected another name", code="name-taken", argument="name"
        )
    return dataset


class _Split:
    """Hold the images and labels of one split; error messages put ``which`` before the word "images" or "labels"."""

    def __init__(self, images: Any, labels: Any, which: str = "") -> None:
        self._labels_name, images_name = f"{which}labels", f"{which}images"
        self.source, self.classes = IN_MEMORY, None
        self.images: _Array | _Items
        if labels is None:
            if isinstance(images, np.ndarray | Tensor):
                raise DataError(
                    f"{self._labels_name} are missing; expected one label for each image", code="labels-missing"
                )
            self.images = pairs = _Pairs(images, images_name, self._labels_name)
            self.labels: Sequence[Label] = pairs.labels
            self.classes = _own_classes(images)
            self.source += f" ({type(images).__module__}.{type(images).__qualname__})"
            return
        is_array = isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype != object)
        self.images = _Array(images, images_name) if is_array else _Items(images, images_name)
        self.labels = _read_labels(labels, self._labels_name)
        if len(self.labels) != len(self.images):
            raise DataError(
                f"number of {self._labels_name} is wrong: {len(self.labels):,}; expected {len(self.images):,}",
                code="label-count",
            )

    def encoded(self, indices: Mapping[Label, int]) -> NDArray[np.int64]:
        """Return the class index of each label, (N,); ``indices`` maps labels to class indices."""
        for number, label in enumerate(self.labels):
            if label not in indices:
                alike = [known for known in indices if type(known) is type(label)] or list(indices)
                near = near_misses(label, map(str, alike), 1) if isinstance(label, str) else []
                raise DataError(
                    f"{self._labels_name}: {label!r:.100} of image {number}; expected one of {shortened(alike)}"
                    f"{f'; did you mean {near[0]!r}?' if near else ''}",
                    code="label-unknown",
                    argument=self._labels_name,
                    index=number,
                )
        return np.array([indices[label] for label in self.labels], np.int64)


class _Array:
    """Hold an array of images, and a checksum to detect later changes of the pixels."""

    def __init__(self, images: NDArray[Any] | Tensor, name: str) -> None:
        check_uint8(images, name)
        shape = tuple(images.shape)
        if shape[:1] == (0,):
            raise DataError(f"{name} are empty: shape {shape}", code="images-empty", argument=name)
        if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] != 3):
            advice = f"; {fault}" if (fault := advice_for_shape(shape)) else ""
            raise DataError(
                f"shape of {name} is wrong: {shape}; expected (N, H, W) or (N, H, W, 3){advice}",
                code="image-shape",
                argument=name,
            )
        self._name = name
        self._pixels: NDArray[np.uint8] = images.numpy(force=True) if isinstance(images, Tensor) else images
        self._checksum = _checksum(self._pixels)

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self) -> NDArray[np.uint8]:
        """Return the array; raise :class:`~zoo.errors.DataError` if pixels changed after this object was created."""
        if _checksum(self._pixels) != self._checksum:
            raise _changed(self._name)
        return self._pixels


class _Items:
    """Hold images of any sizes that are converted on access, and a checksum of each image to detect changes."""

    def __init__(self, images: Any, name: str) -> None:
        self._name = name
        is_sequence = hasattr(images, "__len__") and hasattr(images, "__getitem__")
        if not is_sequence or isinstance(images, IterableDataset | str | bytes | Mapping):
            raise DataError(
                f"type of {name} is wrong: {type(images).__name__}; expected a uint8 array, a list of images or a "
                "map-style torch dataset",
                code="images-type",
                argument=name,
            )
        if len(images) == 0:
            raise DataError(
                f"{name} are empty; expected at least one image of each class", code="images-empty", argument=name
            )
        # Copy the list, but not the images: the caller may later append or remove items.
        self._items = tuple(images) if isinstance(images, list | np.ndarray) else images
        self._expected = self._values()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.decode(index))

    def decode(self, index: int) -> NDArray[np.uint8]:
        """Convert one image to uint8; raise :class:`~zoo.errors.DataError` if it changed since this object was made."""
        pixels, found = self._read(index)
        if found != self._expected[index]:
            raise _changed(f"{self._name}[{index}]")
        return pixels

    def read(self) -> NDArray[np.uint8] | ImageFiles:
        """Return one array if all images have the same size; otherwise return this object."""
        array = as_one_array(self)
        return self if array is None else array

    def _read(self, index: int) -> tuple[NDArray[np.uint8], Label]:
        """Return one image, and a value that reveals changes: the image's checksum, or its label in a torch dataset."""
        pixels = one_image(self._items[index], f"{self._name}[{index}]")
        return pixels, _checksum(pixels)

    def _values(self) -> list[Label]:
        """Return for every image the value that reveals changes, as :meth:`_read` returns it."""
        return [self._read(index)[1] for index in range(len(self))]


class _Pairs(_Items):
    """Hold the images of a torch dataset, and their labels, which are read in advance to detect changes."""

    def __init__(self, dataset: Any, name: str, labels_name: str) -> None:
        self._labels_name = labels_name
        super().__init__(dataset, name)
        self.labels = self._expected = _read_labels(self._expected, labels_name)

    def _read(self, index: int) -> tuple[NDArray[np.uint8], Label]:
        name = f"{self._name}[{index}]"
        try:
            item = self._items[index]
        except Exception as error:  # the user's code may raise any error
            raise DataError(
                f"{name} cannot be read ({type(error).__name__}: {error})", code="item-unreadable", index=index
            ) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"{name} is not a pair (image, label): {type(item).__name__}; return pairs, or pass labels",
                code="item-type",
                index=index,
            )
        return one_image(item[0], name), _read_labels([item[1]], self._labels_name, index)[0]

    def _values(self) -> list[Label]:
        listed = _listed_labels(self._items)
        for index in sorted({*np.linspace(0, len(self) - 1, _READ_TWICE).astype(int).tolist()}):
            (once, label), (again, _label) = self._read(index), self._read(index)
            if not np.array_equal(once, again):
                raise DataError(
                    f"{self._name}[{index}] differs each time it is read; leave out random transforms; "
                    "try augment='crop,flip' instead",
                    code="image-random",
                    index=index,
                )
            if listed and label != listed[index]:
                listed = None
        return listed or super()._values()


def _checksum(pixels: NDArray[np.uint8]) -> int:
    """Return a checksum of the shape and the values of an array, computed without copying the whole array."""
    total = zlib.crc32(str(pixels.shape).encode())
    step = max(1, 2**24 // pixels[0].nbytes)
    for start in range(0, len(pixels), step):
        total = zlib.crc32(np.ascontiguousarray(pixels[start : start + step]).data, total)
    return total


def _own_classes(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a torch dataset, or ``None``; a tuple of synonyms becomes one name."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not names:
        return None
    return tuple(", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names)


def _listed_labels(dataset: Any) -> list[Label] | None:
    """Return the labels in the attribute ``targets`` of a torchvision dataset, or ``None``, without reading items."""
    if isinstance(dataset, Subset):
        whole = _listed_labels(dataset.dataset)
        return None if whole is None else [whole[index] for index in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if targets is None or getattr(dataset, "target_transform", None) is not None or len(targets) != len(dataset):
        return None
    try:
        return _read_labels(targets, "targets")
    except DataError:
        return None


def _read_labels(labels: Any, name: str, first: int = 0) -> list[Label]:
    """Convert labels to a list of ints or of class names; ``first`` is the image index of the first label."""
    if isinstance(labels, str) or not hasattr(labels, "__iter__"):
        raise DataError(f"{name}: {labels!r:.100}; expected integers or class names", code="label-type", argument=name)
    if isinstance(labels, np.ndarray | Tensor):
        one_column = labels.ndim == 2 and labels.shape[1] == 1
        labels = (labels[:, 0] if one_column else labels).tolist()
    values = [_plain(label) for label in labels]
    for index, value in enumerate(values, first):
        if isinstance(value, list | tuple | np.ndarray | Tensor):
            raise DataError(
                f"label of image {index} is a {type(value).__name__}; expected one label; try labels.argmax(1)",
                code="label-shape",
                argument=name,
                index=index,
            )
        if not isinstance(value, int | str) or type(value) is not type(values[0]):
            mixed = ", not both" if isinstance(value, int | str) else ""
            raise DataError(
                f"label of image {index} in {name} is wrong: {value!r:.100}; expected integers or class names{mixed}",
                code="label-type",
                argument=name,
                index=index,
            )
    return values


def _plain(label: Any) -> Any:
    """Convert a numpy or torch scalar to a Python scalar, and booleans and integral floats to int."""
    value = label.item() if isinstance(label, np.generic | np.ndarray | Tensor) and label.ndim == 0 else label
    return int(value) if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()) else value


def _classes_of(labels: Sequence[Label]) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Make one class of each distinct label; return the sorted class names, and a map from labels to class indices."""
    values = sorted(set(labels))  # sortable: all labels have the same type
    if isinstance(values[0], int) and values[0] < 0:
        index = list(labels).index(values[0])
        raise DataError(f"label of image {index} is negative: {values[0]}", code="label-unknown", index=index)
    names, _indices = _named_classes([str(value) for value in values])
    return names, {value: index for index, value in enumerate(values)}


def _refuse_untrained(tested: Sequence[Label], trained: Sequence[Label]) -> None:
    """Raise :class:`~zoo.errors.DataError` for test labels that do not occur among the training labels."""
    known = set(trained)
    new = [label for label in set(tested) - known if type(label) is type(trained[0]) and label != -1]
    if new:
        raise classes_not_in_train(sorted(map(str, new)), sorted(map(str, known)), "test", IN_MEMORY)


def _named_classes(classes: Sequence[str]) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Check the class names; return them, and a map from each name and each class index to the class index."""
    names = tuple(classes) if not isinstance(classes, str) else (0,)
    unfit = [name for name in names if not isinstance(name, str) or not name.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if unfit or twice:
        raise DataError(f"classes: {shortened(classes)}; expected a sequence of distinct names", code="class-name")
    if len(names) < 2:
        raise DataError(f"classes: {shortened(names)}; expected at least 2", code="class-count")
    names = tuple(map(str, names))
    indices: dict[Label, int] = {index: index for index in range(len(names))}
    return names, indices | {name: index for index, name in enumerate(names)}


def _changed(name: str) -> DataError:
    return DataError(
        f"{name} changed after zoo.in_memory was called; call zoo.in_memory again", code="images-changed", name=name
    )
