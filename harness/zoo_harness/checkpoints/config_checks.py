"""Compares ``config.json``, by which timm and transformers load a checkpoint, with what its record makes of it.

zoo loads by the record. Where the two differ, other loaders would build another network, name its classes otherwise or
prepare images otherwise, or be made to fetch or run something. Releases of timm write different remarks into
``pretrained_cfg``; there only the keys that decide are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError
from zoo_harness.records.run import LARGEST_RECORD

_REMARKS = ("num_features", "global_pool")

_DECIDING = (
    "input_size",
    "test_input_size",
    "mean",
    "std",
    "interpolation",
    "crop_pct",
    "test_crop_pct",
    "crop_mode",
    "num_classes",
    "label_names",
    "label_descriptions",
    "label_offset",
    "labels",
    "architecture",
    # What these name would be fetched, or code of timm run upon it.
    "url",
    "file",
    "hf_hub_id",
    "hf_hub_filename",
    "source",
    "state_dict",
    "custom_load",
)


def check_configuration(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` where a configuration contradicts the one that the record makes.

    ``path`` may be missing: then no other loader takes the folder, and nothing is contradicted.
    """
    if not path.exists() and not path.is_symlink():
        return
    found = _read(path)
    wanted = json.loads(json.dumps(expected))  # tuples become lists, as in the file
    faults = list(_differences(found, wanted))
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{path} contradicts the record beside it: {'; '.join(faults[:3])}{more}. timm and transformers would load "
            "it otherwise than zoo; its owner can publish it anew, from a run that was not edited"
        )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path} is not a regular file; fetch all of the checkpoint anew")
    if path.stat().st_size > LARGEST_RECORD:
        raise WeightsError(f"{path} has {path.stat().st_size:,} bytes, a configuration at most {LARGEST_RECORD:,}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error!s:.100}); fetch all of the checkpoint anew") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a JSON object; fetch all of the checkpoint anew")
    return content


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in found:
        if key not in wanted and key not in _REMARKS:
            yield f"it has {key!r:.80}, which zoo does not write"
    for key, value in wanted.items():
        if key == "pretrained_cfg":
            yield from _differences_of_preparation(found.get(key), value)
        elif key == "model_args":
            yield from _differences_of_arguments(found.get(key, {}), value)
        elif key == "model_type" and key not in found:
            continue  # without it, as the first runs wrote it, transformers refuses the network in other words
        elif key not in _REMARKS and found.get(key) != value:
            yield _difference(key, found.get(key), value)


def _differences_of_preparation(found: object, wanted: dict[str, Any]) -> Iterator[str]:
    if not isinstance(found, dict):
        yield _difference("pretrained_cfg", found, wanted)
        return
    for key in _DECIDING:
        if found.get(key) != wanted.get(key):
            yield _difference(f"pretrained_cfg.{key}", found.get(key), wanted.get(key))


def _differences_of_arguments(found: object, wanted: dict[str, Any]) -> Iterator[str]:
    # What is missing is timm's own default, by which the network of the record is built too.
    if not isinstance(found, dict) or any(key not in wanted or found[key] != wanted[key] for key in found):
        yield _difference("model_args", found, wanted)


def _difference(key: str, found: object, wanted: object) -> str:
    there = "missing" if found is None else f"{found!r:.80}"
    return f"{key} is {there}, by the record {'none' if wanted is None else f'{wanted!r:.80}'}"
