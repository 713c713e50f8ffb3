"""Define the key and the record of a cache entry.

The key holds everything that can change a bit of the cached outputs. Two runs with equal keys share the same cached
outputs. This module does not import torch, so that ``zoo cache list`` starts fast.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import math
from typing import Annotated, Final, Literal, get_args

from pydantic import Field

from zoo.backbone import Preprocessing
from zoo_harness.records.run import Record

FORMAT: Final = "blockzoo features 4"

DtypeName = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]  # the names that torch uses

StoredName = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)
_ITEM_BYTES = dict(zip(DTYPES, (8, 4, 2, 2, 8, 4, 2, 1, 1, 1), strict=True))
_SOFTWARE = ("blockzoo", "torch", "torchvision", "timm")
_CHUNK_BYTES = 2**25
_CHUNK_IMAGES = 512
_CHUNK_STEP = 32  # the number of images in a chunk is a multiple of this common batch size
Count = Annotated[int, Field(gt=0)]


class TensorSpec(Record):
    """Describe a tensor that is cached for each image: its name, its shape without the batch dimension, and its dtype.

    ``dtype`` is the dtype in which the network computes the tensor. ``stored`` is the dtype in the cache if this dtype
    is not ``dtype``. ``order`` lists the dimensions of a batch from the outermost to the innermost in memory.

    >>> TensorSpec(name="layer3", shape=(512, 14, 14), dtype="float32", order=(0, 1, 2, 3), stored="bfloat16").bytes
    200704
    """

    name: str
    shape: tuple[Count, ...]
    dtype: DtypeName
    order: tuple[int, ...]
    stored: StoredName | None = None

    @property
    def stored_dtype(self) -> DtypeName:
        """The dtype in which the cache stores the tensor."""
        return self.stored or self.dtype

    @property
    def bytes(self) -> int:
        """The number of bytes that the tensor of one image takes in the cache."""
        return math.prod(self.shape) * _ITEM_BYTES[self.stored_dtype]


def installed_software() -> dict[str, str]:
    """Return the installed versions of blockzoo and of the packages whose code computes the cached outputs."""
    return {name: importlib.metadata.version(name) for name in _SOFTWARE}


class CacheKey(Record):
    """Hold everything that determines the cached outputs of one data split, and divide the images into chunks.

    ``weights``: the digest of the frozen tensors. ``kept``: descriptions of the cached tensors. ``fingerprint``: the
    digest of pixels and labels from :class:`~zoo_harness.records.run.SplitRecord`. ``device``: the kind of device that
    computes the outputs, because ``cpu`` and ``cuda`` round differently. ``code``: the digest of source code that is
    not part of a package in ``software``. Seeds, learning rates and heads are not part of the cache key.
    """

    network: str
    weights: str
    kept: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    images: Count
    fingerprint: str
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    code: str = ""
    software: dict[str, str] = Field(default_factory=installed_software)

    @property
    def columns(self) -> list[slice]:
        """The byte range of each tensor in the row of an image. Every range begins at a multiple of 8 bytes."""
        ends = [0, *itertools.accumulate(-(-tensor.bytes // 8) * 8 for tensor in self.kept)]
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    @property
    def row_bytes(self) -> int:
        """The number of bytes that the cached outputs of one image take."""
        return int(self.columns[-1].stop)

    @property
    def bytes(self) -> int:
        """The number of bytes that the cached outputs of all images take."""
        return self.images * self.row_bytes

    @property
    def chunk_images(self) -> int:
        """The number of images in a chunk, the unit in which outputs are written, checked and recomputed."""
        most = min(_CHUNK_IMAGES, _CHUNK_BYTES // self.row_bytes)
        return max(_CHUNK_STEP, most // _CHUNK_STEP * _CHUNK_STEP)

    @property
    def chunks(self) -> int:
        """The number of chunks into which the images are divided."""
        return -(-self.images // self.chunk_images)

    def chunk(self, number: int) -> range:
        """Return the indices of the images in a chunk."""
        start = number * self.chunk_images
        return range(start, min(start + self.chunk_images, self.images))


class EntryTitle(Record):
    """Name a cache entry by its backbone, dataset and split, without paths."""

    backbone: str
    dataset: str
    split: str


class EntryRecord(Record):
    """The content of the file ``store.json``, which describes a cache entry."""

    format: Literal["blockzoo features 4"] = FORMAT
    title: EntryTitle
    key: CacheKey

    @property
    def digest(self) -> str:
        """The name of the folder of a cache entry: a digest of key, split and file format in 32 hexadecimal digits.

        The digest covers the split, because a run uses the cache entries of two splits at the same time. If two splits
        with the same images shared one cache entry, the run would wait for its own lock.
        """
        content = json.dumps([FORMAT, self.title.split, self.key.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]
