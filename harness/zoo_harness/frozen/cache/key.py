"""What kept outputs of a frozen part are outputs of: everything that determines them, and what a person calls them.

Two runs whose keys are equal may use the same outputs; whatever could change a bit of them belongs into the key.
Nothing here imports torch, so that ``zoo cache list`` is instant.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from zoo.backbone import Preprocessing
from zoo_harness.records.run import Record

FORMAT: Final = "blockzoo features 1"

DtypeName = Literal[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"
]  # as torch calls them

StoredName = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[DtypeName, ...] = get_args(DtypeName)
_ITEM_BYTES = dict(zip(DTYPES, (8, 4, 2, 2, 8, 4, 2, 1, 1, 1), strict=True))
_SOFTWARE = ("blockzoo", "torch", "torchvision", "timm")
_CHUNK_BYTES = 2**26
_CHUNK_IMAGES = 512
_CHUNK_STEP = 32  # batches of that many images, the usual number, fill a chunk
Count = Annotated[int, Field(gt=0)]


class KeptTensor(Record):
    """One tensor that is kept for each image: its shape without the batch, the dtype it is computed and given back in.

    ``stored`` is the dtype it is stored in, if another. ``channels_last`` tensors are stored, and given back, with
    their channels last in memory.

    >>> KeptTensor(name="layer3", shape=(512, 14, 14), dtype="float32", stored="bfloat16").row_bytes
    200704
    """

    name: str
    shape: tuple[Count, ...]
    dtype: DtypeName
    stored: StoredName | None = None
    channels_last: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stored is not None and "float" not in self.dtype:
            raise ValueError(f"kept tensor {self.name!r}: {self.dtype} is stored as it is, not as {self.stored}")
        if self.channels_last and len(self.shape) != 3:
            raise ValueError(f"kept tensor {self.name!r}: channels_last is for 3 dimensions, given {self.shape}")
        return self

    @property
    def stored_dtype(self) -> DtypeName:
        """The dtype in the store."""
        return self.stored or self.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes that one image takes in the store."""
        return math.prod(self.shape) * _ITEM_BYTES[self.stored_dtype]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one image in the store: with ``channels_last`` the channels come last."""
        return (*self.shape[1:], self.shape[0]) if self.channels_last else self.shape


def installed_software() -> dict[str, str]:
    """Versions of the packages whose code computes what is kept."""
    return {name: importlib.metadata.version(name) for name in _SOFTWARE}


class StoreKey(Record):
    """Everything that determines the kept outputs of one split.

    ``weights`` is the digest of the frozen tensors, ``kept`` the cut, ``fingerprint`` the digest of pixels and labels
    that :class:`~zoo_harness.run_record.SplitRecord` has, ``device`` the kind of device that computed: ``cpu`` and
    ``cuda`` round differently, ``code`` the digest of the source of what is not told by a version. Seeds, learning
    rates and heads are not in it.
    """

    network: str
    weights: str
    kept: Annotated[tuple[KeptTensor, ...], Field(min_length=1)]
    preprocessing: Preprocessing
    images: Count
    fingerprint: str
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    code: str = ""
    software: dict[str, str] = Field(default_factory=installed_software)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits, other ones for every other key and every other format of the files."""
        content = json.dumps([FORMAT, self.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @property
    def bytes(self) -> int:
        """How much the outputs of all images take."""
        return self.images * sum(kept.row_bytes for kept in self.kept)

    @property
    def chunk_images(self) -> int:
        """How many images are written, checked and, where something is wrong with them, computed again together."""
        most = min(_CHUNK_IMAGES, _CHUNK_BYTES * self.images // self.bytes)
        return max(_CHUNK_STEP, most // _CHUNK_STEP * _CHUNK_STEP)


class StoreTitle(Record):
    """What a person calls the kept outputs; no paths."""

    backbone: str
    dataset: str
    split: str


class StoreRecord(Record):
    """``store.json``, which lies beside the data."""

    format: Literal["blockzoo features 1"] = FORMAT
    title: StoreTitle
    key: StoreKey
