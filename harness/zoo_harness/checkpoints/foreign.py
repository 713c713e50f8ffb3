"""Recognise checkpoints that zoo did not publish, by file names and ``config.json``, and advise how to load them."""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.text import one_line
from zoo_harness.records.file_names import CHECKPOINT, RECORD, pickles
from zoo_harness.util.safe_files import read_regular

LARGEST_CONFIGURATION = 2**20  # bytes


def describe_foreign(
    identifier: str, names: Collection[str], configuration: Path | None, *, local: bool = False
) -> str:
    """Return text for an error message: the file names of a repository or local folder, and how to load the files.

    ``configuration`` is the path of a ``config.json``, which may be missing or have any content.

    >>> describe_foreign("ada/net", ["net.pth"], None)
    '(it has net.pth); the weights are only in the pickle file net.pth, which zoo never loads because it can run code'
    """
    listed = sorted(names)
    there = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
    return one_line(f"(it has {there or 'nothing'}); {_advice(identifier, listed, _read(configuration), local=local)}")


def _read(path: Path | None) -> dict[str, Any]:
    with suppress(ZooError, OSError, ValueError, RecursionError):  # config.json only improves a hint, so ignore errors
        content = json.loads(read_regular(path, LARGEST_CONFIGURATION, follow_links=True)) if path else {}
        return content if isinstance(content, dict) else {}
    return {}


def _advice(identifier: str, names: list[str], known: dict[str, Any], *, local: bool) -> str:
    if (RECORD in names and CHECKPOINT not in names) or isinstance(known.get("zoo"), dict):
        return (
            "it seems to be an incomplete published run: get all files with zoo pull, or ask the owner to publish again"
        )
    if (pickled := pickles(names)) and not any(name.endswith(".safetensors") for name in names):
        return f"the weights are only in the pickle file {pickled[0]}, which zoo never loads because it can run code"
    if "adapter_config.json" in names:
        return "it seems to be a peft adapter, which is not a whole network"
    if "architecture" in known or "pretrained_cfg" in known:
        call = f"timm.create_model('{'local-dir' if local else 'hf-hub'}:{identifier}', pretrained=True)"
        return f"it seems to be timm's {known.get('architecture', 'network')!s:.80}: {call} loads it"
    if "model_type" in known or "architectures" in known:
        call = f"AutoModel.from_pretrained('{identifier}')"
        return f"it seems to be transformers' {known.get('model_type', 'model')!s:.80}: {call} loads it"
    return "try timm or transformers for checkpoints that zoo did not publish"
