"""Describes cached outputs of a frozen part: the key of all that determines them, and the record beside them.

Two runs with equal keys may use the same outputs; whatever could change a bit of them belongs into the key. Nothing
here imports torch, so that ``zoo cache list`` is instant.
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
]  # as torch calls them

StoredName = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)
_ITEM_BYTES = dict(zip(DTYPES, (8, 4, 2, 2, 8, 4, 2, 1, 1, 1), strict=True))
_SOFTWARE = ("blockzoo", "torch", "torchvision", "timm")
_CHUNK_BYTES = 2**25
_CHUNK_IMAGES = 512
_CHUNK_STEP = 32  # a chunk holds a whole number of batches of the usual size
Count = Annotated[int, Field(gt=0)]


class TensorSpec(Record):
    """Describe a tensor that is kept for each image: its shape without the batch, and the dtype it is computed in.

    ``order`` lists the dimensions of a batch from the outermost in memory to the innermost. ``stored`` is the dtype in
    the cache, if it differs.

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
        """The dtype in the cache."""
        return self.stored or self.dtype

    @property
    def bytes(self) -> int:
        """The number of bytes that one image takes in the cache."""
        return math.prod(self.shape) * _ITEM_BYTES[self.stored_dtype]


def installed_software() -> dict[str, str]:
    """Return the versions of the packages whose code computes the outputs."""
    return {name: importlib.metadata.version(name) for name in _SOFTWARE}


class CacheKey(Record):
    """Hold everything that determines the cached outputs of one data split, and divide its images into chunks.

    ``weights`` is the digest of the frozen tensors. ``kept`` describes the tensors at the cut. ``fingerprint`` is the
    digest of pixels and labels of :class:`~zoo_harness.records.run.SplitRecord`. ``device`` is the kind of device that
    computes, because ``cpu`` and ``cuda`` round differently. ``code`` is the digest of source code that no version
    covers. Seeds, learning rates and heads are not part of the key.
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
        """The bytes of each tensor in the row of an image: multiples of 8, so that any dtype may begin there."""
        ends = [0, *itertools.accumulate(-(-tensor.bytes // 8) * 8 for tensor in self.kept)]
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    @property
    def row_bytes(self) -> int:
        """The number of bytes that the outputs of one image take."""
        return int(self.columns[-1].stop)

    @property
    def bytes(self) -> int:
        """The number of bytes that the outputs of all images take."""
        return self.images * self.row_bytes

    @property
    def chunk_images(self) -> int:
        """The number of images of a chunk, which is written, checked and, if damaged, recomputed as a whole."""
        most = min(_CHUNK_IMAGES, _CHUNK_BYTES // self.row_bytes)
        return max(_CHUNK_STEP, most // _CHUNK_STEP * _CHUNK_STEP)

    @property
    def chunks(self) -> int:
        """The number of chunks."""
        return -(-self.images // self.chunk_images)

    def chunk(self, number: int) -> range:
        """Return the images of a chunk."""
        start = number * self.chunk_images
        return range(start, min(start + self.chunk_images, self.images))


class EntryTitle(Record):
    """Name cached outputs for a person; no paths."""

    backbone: str
    dataset: str
    split: str


class EntryRecord(Record):
    """Describe a cache entry in the file ``store.json`` beside its chunks."""

    format: Literal["blockzoo features 4"] = FORMAT
    title: EntryTitle
    key: CacheKey

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that differ for every other key, split and file format; they name the folder.

        With the split, because a run has two entries open, and must not wait for itself if their images are the same.
        """
        content = json.dumps([FORMAT, self.title.split, self.key.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]
