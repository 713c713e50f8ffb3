"""Recognise a file of ``zoo features`` by its metadata, and choose a layer and a split of it, without torch."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UnknownNameError, UsageError
from zoo_harness.records.features import KEY, FeatureArray, FeaturesRecord


def read_record(path: Path, kind: str) -> FeaturesRecord | None:
    """Return the record of a file of ``zoo features``, or ``None`` for any other file; ``kind``: such as ".npz"."""
    text = _METADATA[kind](path) if kind in _METADATA else None
    return None if text is None else FeaturesRecord.model_validate_json(text)


def choose_layer(record: FeaturesRecord, given: str | None) -> FeatureArray:
    """Return the layer of this name, or without a name the only one."""
    known = {each.layer: each for each in record.layers}
    if given is None and len(known) == 1:
        return record.layers[0]
    if given is None:
        message = f"the file holds {len(known)} layers: {', '.join(known)}; expected one; try --features LAYER"
        raise UsageError(message, code="missing-features", layers=list(known))
    found = known.get(given) or next((each for each in record.layers if each.array == given), None)
    if found is None:
        raise UnknownNameError("layer", given, known, "name it with --features")
    return found


def choose_split(record: FeaturesRecord, given: str | None, preferred: str) -> str:
    """Return the split of this name; without a name the only one, or of both the preferred one."""
    known = [each.split for each in record.splits]
    if given is not None and given not in known:
        raise UnknownNameError("split", given, known, "name it with --split")
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
