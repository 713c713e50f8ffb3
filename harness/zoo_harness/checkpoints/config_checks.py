"""Check that a checkpoint's ``config.json`` agrees with the run record in the same folder.

zoo loads a checkpoint by its run record, but timm and transformers load it by ``config.json``. A manipulated
``config.json`` could make timm or transformers build another network; use other class names or another preprocessing;
download files; or run code. timm releases differ in the keys that they write into ``pretrained_cfg``, so only the keys
that affect loading are compared.
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
    # These keys name files that timm would download, or timm functions that would run on the files.
    *("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load"),
)


def check_configuration(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if the ``config.json`` at ``path`` differs from the expected content.

    A missing file needs no check, because timm and transformers themselves refuse a folder without ``config.json``.
    """
    if not path.exists() and not path.is_symlink():
        return
    wanted = json.loads(json.dumps(expected))  # converts tuples to lists, as JSON does
    faults = list(_differences(_read(path), wanted))
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{path} contradicts the record beside it: {'; '.join(faults[:3])}{more}. timm and transformers would load "
            "another model than zoo; ask the owner to publish the checkpoint again from an unedited run",
            code="configuration-contradicts",
            path=path,
            faults=faults,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path, LARGEST_RECORD, follow_links=True))  # the Hub cache uses symbolic links
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (ZooError, FileNotFoundError, ValueError, RecursionError) as error:
        message = f"{path} is not a JSON configuration: {error!s:.100}; download the whole checkpoint again"
        raise WeightsError(message, code="configuration-unreadable", path=path) from error
    return content


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in found:
        if key not in wanted and key not in _REMARKS:
            yield f"unexpected key {key!r:.80}"
    for key, value in wanted.items():
        there = found.get(key)
        if key == "pretrained_cfg" and isinstance(there, dict):
            for name in _DECIDING:
                if there.get(name) != value.get(name):
                    yield _difference(f"pretrained_cfg.{name}", there.get(name), value.get(name))
        elif key == "model_args":
            # An argument may be missing, because timm's default value also builds the network of the record.
            given = found.get(key, {})
            if not isinstance(given, dict) or not given.items() <= value.items():
                yield _difference(key, given, value)
        elif key == "model_type" and key not in found:
            continue  # the first versions of zoo wrote no model_type; transformers refuses such a file anyway
        elif key not in _REMARKS and there != value:
            yield _difference(key, there, value)


def _difference(key: str, found: object, wanted: object) -> str:
    there = "missing" if found is None else f"{found!r:.80}"
    return f"{key} is {there}, but the record requires {'none' if wanted is None else f'{wanted!r:.80}'}"
