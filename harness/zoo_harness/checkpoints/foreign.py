"""What a repository or folder seems to be that zoo did not publish, told from its file names and ``config.json``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo_harness.records.file_names import CHECKPOINT, RECORD, pickles
from zoo_harness.util.text import one_line


def what_it_seems(identifier: str, names: Collection[str], configuration: object, *, local: bool = False) -> str:
    """What to make of a repository, or with ``local`` of a folder, that is not a published run.

    ``configuration`` is what its ``config.json`` holds, ``None`` where that is not known.

    >>> what_it_seems("ada/net", ["config.json", "model.safetensors"], {"architecture": "resnet18"})
    "it seems to be a network of timm, 'resnet18': timm.create_model('hf-hub:ada/net', pretrained=True) loads it"
    >>> what_it_seems("ada/net", ["net.pth"], None)
    'its weights are in net.pth alone, a pickle, which can run any code and is never loaded'
    """
    has_tensors = any(name.endswith(".safetensors") for name in names)
    known: dict[str, Any] = configuration if isinstance(configuration, dict) else {}
    if (RECORD in names and CHECKPOINT not in names) or isinstance(known.get("zoo"), dict):
        return "it seems to be half of a published run: have it published again, or fetch all of it with zoo pull"
    if (pickled := pickles(names)) and not has_tensors:
        return f"its weights are in {one_line(pickled[0])} alone, a pickle, which can run any code and is never loaded"
    if "adapter_config.json" in names:
        return "it seems to be an adapter of peft, and not a whole network"
    if "architecture" in known or "pretrained_cfg" in known:
        named = _named(known.get("architecture"))
        call = f"timm.create_model('{'local-dir' if local else 'hf-hub'}:{identifier}', pretrained=True) loads it"
        return f"it seems to be a network of timm{named}: {call}"
    if "model_type" in known or "architectures" in known:
        named = _named(known.get("model_type"))
        call = f"AutoModel.from_pretrained('{identifier}') loads it"
        return f"it seems to be a model of transformers{named}: {call}"
    return "try timm or transformers for what others published"


def _named(value: object) -> str:
    return f", {one_line(value)!r:.80}" if isinstance(value, str) else ""
