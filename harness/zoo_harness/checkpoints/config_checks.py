"""Compares ``config.json``, by which timm and transformers load a checkpoint, with the configuration of its record.

zoo loads by the record. If the two differ, other loaders would build another network, name its classes otherwise,
prepare images otherwise, or be made to fetch or run something. Releases of timm write different remarks into
``pretrained_cfg``; there only the keys that decide are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError, ZooError
from zoo_harness.records.run import LARGEST_RECORD
from zoo_harness.util.safe_files import read_regular

_REMARKS = ("num_features", "global_pool")

_DECIDING = (
    *("input_size", "test_input_size", "mean", "std", "interpolation", "crop_pct", "test_crop_pct", "crop_mode"),
    *("num_classes", "label_names", "label_descriptions", "label_offset", "labels", "architecture"),
    # These name files that would be fetched, or code of timm that would run on them.
    *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load"),
)


def check_configuration(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if a configuration contradicts the one that the record makes.

    ``path`` may be missing: then no other loader takes the folder, and nothing is contradicted.
    """
    if not path.exists() and not path.is_symlink():
        return
    wanted = json.loads(json.dumps(expected))  # tuples become lists, as in the file
    faults = list(_differences(_read(path), wanted))
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{path} contradicts the record beside it: {'; '.join(faults[:3])}{more}. timm and transformers would load "
            "it otherwise than zoo; its owner can publish it anew, from a run that was not edited",
            code="configuration-contradicts",
            path=path,
            faults=faults,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path, LARGEST_RECORD, follow_links=True))  # as in the Hub's cache
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (ZooError, FileNotFoundError, ValueError, RecursionError) as error:
        message = f"{path} is not a JSON configuration: {error!s:.100}; fetch all of the checkpoint anew"
        raise WeightsError(message, code="configuration-unreadable", path=path) from error
    return content


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in found:
        if key not in wanted and key not in _REMARKS:
            yield f"it has {key!r:.80}, which zoo does not write"
    for key, value in wanted.items():
        there = found.get(key)
        if key == "pretrained_cfg" and isinstance(there, dict):
            for name in _DECIDING:
                if there.get(name) != value.get(name):
                    yield _difference(f"pretrained_cfg.{name}", there.get(name), value.get(name))
        elif key == "model_args":
            # timm builds the network of the record by its own default too, if an argument is missing.
            given = found.get(key, {})
            if not isinstance(given, dict) or not given.items() <= value.items():
                yield _difference(key, given, value)
        elif key == "model_type" and key not in found:
            continue  # without it, as the first runs wrote it, transformers refuses the network in other words
        elif key not in _REMARKS and there != value:
            yield _difference(key, there, value)


def _difference(key: str, found: object, wanted: object) -> str:
    there = "missing" if found is None else f"{found!r:.80}"
    return f"{key} is {there}, by the record {'none' if wanted is None else f'{wanted!r:.80}'}"
