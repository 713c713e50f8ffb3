"""Recognise files that ``zoo features`` has written, and choose a layer and a split, without importing torch."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UnknownNameError, UsageError
from zoo_harness.records.features import KEY, FeatureArray, FeaturesRecord


def read_record(path: Path, kind: str) -> FeaturesRecord | None:
    """Return the metadata that ``zoo features`` has stored in a file, or ``None`` if the file has no such metadata.

    ``kind``: the file format, such as ".npz".
    """
    text = _METADATA[kind](path) if kind in _METADATA else None
    return None if text is None else FeaturesRecord.model_validate_json(text)


def choose_layer(record: FeaturesRecord, given: str | None) -> FeatureArray:
    """Return the layer with the given name, or the file's only layer if no name is given."""
    known = {each.layer: each for each in record.layers}
    if given is None and len(known) == 1:
        return record.layers[0]
    if given is None:
        message = f"no layer is given; expected one of {', '.join(known)}; try --features LAYER"
        raise UsageError(message, code="missing-features", layers=list(known))
    found = known.get(given) or next((each for each in record.layers if each.array == given), None)
    if found is None:
        raise UnknownNameError("layer", given, known, "choose a layer with --features")
    return found


def choose_split(record: FeaturesRecord, given: str | None, preferred: str) -> str:
    """Return the name of the split to read: the given split, else the preferred split, else the file's first split.

    Raises :class:`~zoo.errors.UnknownNameError` if the file lacks the given split.
    """
    known = [each.split for each in record.splits]
    if given is not None and given not in known:
        raise UnknownNameError("split", given, known, "choose a split with --split")
    return given or (preferred if preferred in known else known[0])


def _npz_metadata(path: Path) -> str | None:
    import numpy as np

    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return str(archive[KEY]) if KEY in archive.files else None


def _safetensors_metadata(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return (file.metadata() or {}).get(KEY)


def _parquet_metadata(path: Path) -> str | None:
    import pyarrow.parquet

    with path.open("rb") as file:
        text = (pyarrow.parquet.read_schema(file).metadata or {}).get(KEY.encode())
    return None if text is None else text.decode()


_METADATA = {".npz": _npz_metadata, ".safetensors": _safetensors_metadata, ".parquet": _parquet_metadata}
