"""Makes a data set of images in memory, or of a torch data set."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from zoo_harness.data.image_input import Pixels, advice_for_shape, check_uint8, one_image
from zoo_harness.records.run import IN_MEMORY

_READ_TWICE = 8  # images, to notice random transforms


class MapDataset(Protocol):
    """A map-style torch data set; its items are pairs of an image and a label."""

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
    license: str | None = None,  # noqa: A002 - as the field of Dataset
) -> Dataset:
    """Make a data set of images in memory, for every function that takes a data set.

    ``images``: a uint8 array or tensor ``(N, H, W)`` or ``(N, H, W, 3)``; or a sequence of images of any sizes, each a
    PIL image, a uint8 array ``(H, W)`` or ``(H, W, 3)`` or a tensor; or a map-style torch data set, whose items are
    pairs of such an image and a label. A floating-point tensor ``(3, H, W)`` of values from 0 to 1 is one image too:
    its values are multiplied by 255 and rounded.

    ``labels``: one for each image, an index into ``classes`` or a class name; leave it out for a torch data set.
    ``classes``: the names in label order; by default those of the torch data set, or the labels that occur, sorted.
    ``test``: a pair of images and labels, or a torch data set. Without it, a run needs ``val_fraction``.

    Images are neither copied nor written to disk. A run reads them when it starts; it refuses arrays and lists whose
    pixels changed after this call, because the record could not say so. Raises :class:`~zoo.errors.DataError` or
    :class:`~zoo.errors.UsageError`, with a ``code``, for wrong images, labels, classes or names.

    >>> data = in_memory(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"])
    >>> data.name, data.classes
    ('in_memory', ('cat', 'dog'))
    """
    train = _Split(images, labels, "")
    given = train.classes if classes is None else classes
    names, indices = _from_labels(train.labels) if given is None else _from_names(given)
    splits = {"train": (train, train.encoded(indices))}
    _refuse_empty_class(splits["train"][1], names)
    if test is not None:
        tested = _Split(*_images_and_labels(test), "test ")
        if classes is None and tested.classes not in (None, names):
            expected = f"those of the training data, {shortened(names)}"
            raise _refused("class-mismatch", "test", f"the classes {shortened(tested.classes)}", expected)
        splits["test"] = (tested, tested.encoded(indices))

    def load(request: DatasetRequest) -> LoadedDataset:
        if request.data_dir is not None:
            raise UsageError(f"data_dir {str(request.data_dir)!r} is for files; data set {name!r} is in memory")
        read = {split: ImageSplit(found.read(), encoded) for split, (found, encoded) in splits.items()}
        return LoadedDataset(names, read, source=train.source)

    return _declared(name, title, license, names, load)


def _declared(
    name: str,
    title: str | None,
    license: str | None,  # noqa: A002
    classes: tuple[str, ...],
    load: Callable[[DatasetRequest], LoadedDataset],
) -> Dataset:
    if title is None:
        title = "Images in memory" if name == "in_memory" else name
    try:
        dataset = Dataset(name=name, title=title, loader=load, classes=classes, license=license, citation=None)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        argument = str(fault["loc"][0])
        message = f"{argument} is wrong: {shortened(fault['input'])}: {fault['msg']}"
        raise UsageError(message, code="name", argument=argument) from error
    if name in load_registry().datasets:
        raise UsageError(
            f"name is taken by a declared data set: {name!r}; expected a name of your own",
            code="name-taken",
            argument="name",
        )
    return dataset


def _images_and_labels(test: Any) -> tuple[Any, Any]:
    return test if isinstance(test, tuple) and len(test) == 2 else (test, None)


class _Split:
    """One split as it was given; ``which`` is ``"test "`` for the test split, for messages."""

    def __init__(self, images: Any, labels: Any, which: str) -> None:
        self._labels_name, images_name = f"{which}labels", f"{which}images"
        self.source, self.classes = IN_MEMORY, None
        self._images: _Array | _Items
        if labels is None:
            self._images = pairs = _Pairs(images, images_name, self._labels_name)
            self.labels: Sequence[Label] = pairs.labels
            self.classes = _own_classes(images)
            self.source += f" ({type(images).__module__}.{type(images).__qualname__})"
            return
        is_array = isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype != object)
        self._images = _Array(images, images_name) if is_array else _Items(images, images_name)
        self.labels = _read_labels(labels, self._labels_name)
        if len(self.labels) != len(self._images):
            given = f"{len(self.labels):,} labels, {len(self._images):,} images"
            raise _refused("label-count", self._labels_name, given, "one label for each image")

    def read(self) -> NDArray[np.uint8] | ImageFiles:
        """Read the images: images of one size into one array, others when they are asked for."""
        if isinstance(self._images, _Array):
            return self._images.checked()
        array = as_one_array(self._images)
        return self._images if array is None else array

    def encoded(self, indices: Mapping[Label, int]) -> NDArray[np.int64]:
        """Return the class index of each label."""
        for number, label in enumerate(self.labels):
            if label not in indices:
                alike = [known for known in indices if type(known) is type(label)] or list(indices)
                near = near_misses(label, map(str, alike), 1) if isinstance(label, str) else []
                expected = f"one of {shortened(alike)}{f'; did you mean {near[0]!r}?' if near else ''}"
                given = _of_image(label, number)
                raise _refused("label-unknown", self._labels_name, given, expected, index=number)
        return np.array([indices[label] for label in self.labels], np.int64)


class _Array:
    """An array of images, and the checksum that it had when it was given."""

    def __init__(self, images: NDArray[Any] | Tensor, name: str) -> None:
        check_uint8(images, name)
        _check_shape(tuple(images.shape), name)
        self._name = name
        self._pixels: NDArray[np.uint8] = images.numpy(force=True) if isinstance(images, Tensor) else images
        self._checksum = _checksum(self._pixels)

    def __len__(self) -> int:
        return len(self._pixels)

    def checked(self) -> NDArray[np.uint8]:
        """Return the array; raises :class:`~zoo.errors.DataError` if its pixels changed."""
        if _checksum(self._pixels) != self._checksum:
            raise _changed(self._name)
        return self._pixels


class _Items:
    """Images of any sizes, converted when they are asked for, and the checksum that each had when it was given."""

    def __init__(self, images: Any, name: str) -> None:
        self._name = name
        self._items = _sequence(images, name)
        self._count = len(self._items)
        self._checksums = [_checksum(self._pixels(index)) for index in range(self._count)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.decode(index))

    def decode(self, index: int) -> NDArray[np.uint8]:
        """Convert one image; raises :class:`~zoo.errors.DataError` if its pixels changed."""
        pixels = self._pixels(index)
        if _checksum(pixels) != self._checksums[index]:
            raise _changed(f"{self._name}[{index}]")
        return pixels

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        return one_image(self._items[index], f"{self._name}[{index}]")


class _Pairs(_Items):
    """The images of a torch data set, whose items are read when they are asked for; their labels are known before."""

    def __init__(self, dataset: Any, name: str, labels_name: str) -> None:
        if isinstance(dataset, np.ndarray | Tensor):
            raise _refused("labels-missing", labels_name, "none for an array of images", "one label for each image")
        self._name = name
        self._labels_name = labels_name
        self._items = _sequence(dataset, name)
        self._count = len(self._items)
        self._refuse_random_images()
        listed = _listed_labels(dataset)
        if listed is None or any(self._pair(index)[1] != listed[index] for index in self._sample()):
            listed = [self._pair(index)[1] for index in range(self._count)]
        self.labels = _read_labels(listed, labels_name)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """Read one image; raises :class:`~zoo.errors.DataError` if its label changed."""
        image, label = self._pair(index)
        if label != self.labels[index]:
            raise _changed(f"label {index} of the data set")
        return image

    def _pair(self, index: int) -> tuple[NDArray[np.uint8], Label]:
        name = f"{self._name}[{index}]"
        try:
            item = self._items[index]
        except Exception as error:  # whatever the user's code raises
            message = f"{name} cannot be read ({type(error).__name__}: {error})"
            raise DataError(message, code="item-unreadable", index=index) from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise _refused(
                "item-type", name, f"{type(item).__name__}", "a pair (image, label), or labels given apart", index=index
            )
        return one_image(item[0], name), _read_labels([item[1]], self._labels_name, index)[0]

    def _sample(self) -> list[int]:
        return sorted({*np.linspace(0, self._count - 1, _READ_TWICE).astype(int).tolist()})

    def _refuse_random_images(self) -> None:
        for index in self._sample():
            once, again = (self._pair(index)[0] for _time in range(2))
            if not np.array_equal(once, again):
                raise DataError(
                    f"{self._name}[{index}] is another image each time it is read; expected a data set without random "
                    "transforms; try the option augment",
                    code="image-random",
                    index=index,
                )


def _sequence(images: Any, name: str) -> Any:
    """Return a sequence; a list is copied, so that the caller may change it."""
    if isinstance(images, IterableDataset):
        raise _refused("images-type", name, "an IterableDataset", "a map-style data set, which has a length")
    if isinstance(images, str | bytes | Mapping) or not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        raise _refused(
            "images-type", name, f"{type(images).__name__}", "a uint8 array, a list of images or a torch data set"
        )
    if len(images) == 0:
        raise _refused("images-empty", name, "no image", "at least one of each class")
    return tuple(images) if isinstance(images, list | np.ndarray) else images


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if shape and shape[0] == 0:
        raise _refused("images-empty", name, f"an array of shape {shape}", "at least one image of each class")
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] != 3):
        advice = advice_for_shape(shape)
        raise _refused(
            "image-shape", name, f"shape {shape}", f"(N, H, W) or (N, H, W, 3){'; ' + advice if advice else ''}"
        )


def _checksum(pixels: NDArray[np.uint8]) -> int:
    """Return a checksum of shape and values, without a copy of the whole array."""
    total = zlib.crc32(str(pixels.shape).encode())
    step = max(1, 2**24 // pixels[0].nbytes)
    for start in range(0, len(pixels), step):
        total = zlib.crc32(np.ascontiguousarray(pixels[start : start + step]).data, total)
    return total


def _own_classes(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a torch data set, if it has any; names of several words are joined."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not names:
        return None
    return tuple(", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names)


def _listed_labels(dataset: Any) -> list[Label] | None:
    """Return the labels that a data set of torchvision lists, which need not be read item by item."""
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
    """Return labels as a list of Python's whole numbers, or of class names; ``first`` is the index of their image."""
    if isinstance(labels, str) or not hasattr(labels, "__iter__"):
        raise _refused("label-type", name, f"{labels!r:.100}", "a sequence of whole numbers or of class names")
    values = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else [_plain(label) for label in labels]
    for index, value in enumerate(values, first):
        if isinstance(value, list | tuple | np.ndarray | Tensor):
            raise _refused("label-shape", name, _of_image(value, index), "one label; try labels.argmax(1)", index=index)
        if isinstance(value, bool) or not isinstance(value, int | str) or type(value) is not type(values[0]):
            expected = "whole numbers or class names, not both"
            raise _refused("label-type", name, _of_image(value, index), expected, index=index)
    return list(values)


def _plain(label: object) -> object:
    """Return the Python value of a label that is a numpy scalar or a tensor without dimensions."""
    if isinstance(label, np.generic) or (isinstance(label, Tensor | np.ndarray) and label.ndim == 0):
        return label.item()
    return label


def _from_labels(labels: Sequence[Label]) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Name the classes after the labels that occur; return the names and the index of each label."""
    values = sorted(set(labels))  # all of one type
    if isinstance(values[0], int) and values[0] < 0:
        index = list(labels).index(values[0])
        raise _refused(
            "label-unknown",
            "labels",
            _of_image(values[0], index),
            "0 or more; leave out images without a label",
            index=index,
        )
    names, _indices = _from_names([str(value) for value in values])
    return names, {value: index for index, value in enumerate(values)}


def _from_names(classes: Sequence[str]) -> tuple[tuple[str, ...], dict[Label, int]]:
    """Check the names of the classes; return them, and the index of each label: a name, or a whole number."""
    names = tuple(classes) if not isinstance(classes, str) else ()
    unfit = [name for name in names if not isinstance(name, str) or not name.strip()]
    if isinstance(classes, str) or unfit:
        raise _refused("class-name", "classes", shortened(unfit[0] if unfit else classes), "a sequence of names")
    if len(names) < 2:
        raise _refused("class-count", "classes", shortened(names), "at least 2")
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise _refused("class-name", "classes", f"{name!r:.100} {times} times", "each name once")
    return tuple(map(str, names)), {index: index for index in range(len(names))} | {
        str(name): index for index, name in enumerate(names)
    }


def _refuse_empty_class(labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise _refused(
            "class-empty",
            "labels",
            f"no image of class {classes[empty[0]]!r:.100} ({len(empty)} such class(es))",
            "training images of every class",
        )


def _refused(code: str, argument: str, given: str, expected: str, **facts: object) -> DataError:
    return DataError(f"{argument}: given {given}; expected {expected}", code=code, argument=argument, **facts)


def _of_image(label: object, index: int) -> str:
    return f"{label!r:.100} of image {index}"


def _changed(what: str) -> DataError:
    return DataError(f"{what} changed after zoo.in_memory was called; call it again", code="images-changed", what=what)
