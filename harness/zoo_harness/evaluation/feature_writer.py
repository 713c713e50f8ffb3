"""Write features batch by batch to a ``.safetensors``, ``.npz`` or ``.parquet`` file.

The same features always give a file with the same bytes. At any time, only one batch of features is in memory, or one
row group of features for a parquet file. ``zoo_harness.separation.feature_files`` reads the files.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from zoo.errors import UsageError, ZooError
from zoo_harness.records.features import INDICES, KEY, LABELS, SPLIT, FeaturesRecord
from zoo_harness.util.atomic_files import full_disk_named, replacing
from zoo_harness.util.byte_sizes import bytes_in_words

Array = NDArray[Any]
ROW_GROUP_BYTES = 2**26
_SAFETENSORS_DTYPES = {"<f4": "F32", "<i8": "I64", "|u1": "U8"}
_FEATURES_DTYPE = np.dtype("<f4")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip file can store


class FeatureWriter(Protocol):
    """The interface of all writers of features."""

    def append(self, batch: Sequence[Array]) -> None:
        """Write the features of the next images. ``batch``: one array (B, D) float32 for each layer of the record."""


class MemoryWriter:
    """Keep all features in memory. ``arrays``: a dictionary from layer names to features (N, D) float32."""

    def __init__(self, record: FeaturesRecord) -> None:
        self.arrays = {each.layer: np.empty((record.rows, each.width), _FEATURES_DTYPE) for each in record.layers}
        self._done = 0

    def append(self, batch: Sequence[Array]) -> None:
        """Copy the features of the next images into ``arrays``. ``batch``: one array (B, D) for each layer."""
        stop = self._done + len(batch[0])
        for array, part in zip(self.arrays.values(), batch, strict=True):
            array[self._done : stop] = part
        self._done = stop


@contextmanager
def feature_writer(
    path: Path, record: FeaturesRecord, labels: NDArray[np.int64], indices: NDArray[np.int64]
) -> Iterator[FeatureWriter]:
    """Yield a writer of features to a file. If no error occurs, the file appears at the end of the ``with`` block.

    ``labels``: (N,), the labels of all rows. ``indices``: (N,), the image indices of all rows. Raises
    :class:`~zoo.errors.ZooError` if the disk has too little space.
    """
    write = WRITERS[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create the folder {str(path.parent)!r}: {error.strerror}"
        raise ZooError(message, code="cannot-make-folder", path=path.parent) from error
    _check_room(path, record, copies=2 if write is _write_npz else 1)
    advice = "try fewer layers, --pool, or deleting files in the folder"
    with (
        full_disk_named(path.parent, advice),
        replacing(path) as temporary,
        write(temporary, record, labels, indices) as writer,
    ):
        yield writer


def _check_room(path: Path, record: FeaturesRecord, copies: int) -> None:
    size = 4 * record.rows * sum(each.width for each in record.layers) * copies
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise ZooError(
            f"features do not fit on the disk: {bytes_in_words(size)}; {path.parent} has {bytes_in_words(free)} free; "
            "try --pool, fewer layers, or fewer images with --per-class or --limit",
            code="disk-full",
            path=path.parent,
            needed=size,
            free=free,
        )


def split_codes(record: FeaturesRecord) -> NDArray[np.uint8]:
    """Return the split of each row as a code, (N,): 0 for the training split, 1 for the test split."""
    return np.repeat(
        np.array([("train", "test").index(each.split) for each in record.splits], np.uint8),
        [each.rows for each in record.splits],
    )


@contextmanager
def _write_safetensors(path: Path, record: FeaturesRecord, labels: Array, indices: Array) -> Iterator[FeatureWriter]:
    first = {LABELS: labels.astype("<i8"), INDICES: indices.astype("<i8")}
    last = {SPLIT: split_codes(record)}  # the array of single bytes comes last, so that all other arrays are aligned
    shapes = {each.array: (record.rows, each.width) for each in record.layers}
    described: dict[str, Any] = {"__metadata__": {KEY: record.model_dump_json()}}
    offsets, end = {}, 0
    for name in (*first, *shapes, *last):
        array = {**first, **last}.get(name)
        dtype, shape = (_FEATURES_DTYPE, shapes[name]) if array is None else (array.dtype, array.shape)
        offsets[name], end = end, end + dtype.itemsize * math.prod(shape)
        described[name] = {
            "dtype": _SAFETENSORS_DTYPES[dtype.str],
            "shape": shape,
            "data_offsets": [offsets[name], end],
        }
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    start = 8 + len(header)
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, start + end)  # reports a full disk before the features are computed
        _write_at(file, 0, len(header).to_bytes(8, "little") + header)
        for name, array in {**first, **last}.items():
            _write_at(file, start + offsets[name], array.data)
        yield _Offsets(file, [start + offsets[name] for name in shapes])


def _write_at(file: IO[bytes], offset: int, content: bytes | memoryview) -> None:
    view = memoryview(content).cast("B")
    while view:
        written = os.pwrite(file.fileno(), view, offset)
        view, offset = view[written:], offset + written


class _Offsets:
    """Write the features of all layers into one file, each layer at its own offset."""

    def __init__(self, file: IO[bytes], offsets: list[int]) -> None:
        self._file, self._offsets = file, offsets

    def append(self, batch: Sequence[Array]) -> None:
        for index, part in enumerate(batch):
            content = np.ascontiguousarray(part, _FEATURES_DTYPE)
            _write_at(self._file, self._offsets[index], content.data)
            self._offsets[index] += content.nbytes


@contextmanager
def _write_npz(path: Path, record: FeaturesRecord, labels: Array, indices: Array) -> Iterator[FeatureWriter]:
    """Collect the features of each layer in a temporary file, and write the zip file at the end.

    The files inside a zip file can only be written one after the other, but every batch contains features of all
    layers.
    """
    with ExitStack() as stack:
        files: list[IO[bytes]] = [
            stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for _layer in record.layers
        ]
        yield _Files(files)
        small = {
            LABELS: labels,
            INDICES: indices,
            SPLIT: np.array(["train", "test"])[split_codes(record)],
            "class_names": np.array(record.class_names),
            KEY: np.array(record.model_dump_json()),
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for each, file in zip(record.layers, files, strict=True):
                with _member(archive, each.array) as member:
                    _write_header(member, (record.rows, each.width))
                    file.seek(0)
                    shutil.copyfileobj(file, member, 2**20)
            for name, array in small.items():
                with _member(archive, name) as member:
                    npy.write_array(member, array, allow_pickle=False)


def _write_header(member: IO[bytes], shape: tuple[int, ...]) -> None:
    described = {"descr": _FEATURES_DTYPE.str, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(member, described)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    return archive.open(zipfile.ZipInfo(f"{name}.npy", _EARLIEST), "w", force_zip64=True)


class _Files:
    """Write the features of each layer to a separate file."""

    def __init__(self, files: list[IO[bytes]]) -> None:
        self._files = files

    def append(self, batch: Sequence[Array]) -> None:
        for file, part in zip(self._files, batch, strict=True):
            file.write(np.ascontiguousarray(part, _FEATURES_DTYPE).data)


@contextmanager
def _write_parquet(path: Path, record: FeaturesRecord, labels: Array, indices: Array) -> Iterator[FeatureWriter]:
    import pyarrow
    import pyarrow.parquet

    names = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    kinds = {
        **{each.array: pyarrow.list_(pyarrow.float32(), each.width) for each in record.layers},
        "label": pyarrow.int64(),
        "class": names,
        SPLIT: names,
        "index": pyarrow.int64(),
    }
    schema = pyarrow.schema(list(kinds.items()), {KEY: record.model_dump_json()})
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=["class", SPLIT]) as file:
        writer = _RowGroups(file, record, labels, indices)
        yield writer
        writer.flush()


class _RowGroups:
    """Collect batches of features, and write the collected batches as row groups of a parquet file."""

    def __init__(self, file: Any, record: FeaturesRecord, labels: Array, indices: Array) -> None:
        self._file, self._record, self._labels, self._indices = file, record, labels, indices
        self._codes = split_codes(record)
        self._batches: list[list[Array]] = []
        self._bytes = self._done = 0

    def append(self, batch: Sequence[Array]) -> None:
        self._batches.append([np.ascontiguousarray(part, _FEATURES_DTYPE) for part in batch])
        self._bytes += sum(part.nbytes for part in batch)
        if self._bytes >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        import pyarrow

        if not self._batches:
            return
        parts = [np.concatenate(each) for each in zip(*self._batches, strict=True)]
        rows = slice(self._done, self._done + len(parts[0]))
        columns = [
            pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(part.reshape(-1)), part.shape[1]) for part in parts
        ]
        columns += [
            pyarrow.array(self._labels[rows]),
            _coded(self._labels[rows], self._record.class_names),
            _coded(self._codes[rows], ("train", "test")),
            pyarrow.array(self._indices[rows]),
        ]
        self._file.write_table(pyarrow.table(columns, schema=self._file.schema))
        self._batches, self._bytes, self._done = [], 0, rows.stop


def _coded(codes: Array, names: Sequence[str]) -> Any:
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes.astype(np.int32)), pyarrow.array(list(names)))


WRITERS: Mapping[str, Any] = {".safetensors": _write_safetensors, ".npz": _write_npz, ".parquet": _write_parquet}


def check_ending(path: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` if features cannot be written to a file with this extension."""
    if path.suffix.lower() not in WRITERS:
        message = f"--out {str(path)!r} has an unknown extension: {path.suffix!r}; expected {', '.join(WRITERS)}"
        raise UsageError(message, code="out-ending", path=path)
