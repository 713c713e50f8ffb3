"""What a repository of the Hub seems to be that zoo did not publish, told from its file names and ``config.json``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from zoo_harness.markdown import one_line
from zoo_harness.published_files import CHECKPOINT, RECORD, pickles


def what_it_seems(identifier: str, names: Collection[str], configuration: object) -> str:
    """What to make of a repository that is not a published run; ``configuration`` is its ``config.json``, if any.

    >>> what_it_seems("ada/net", ["config.json", "model.safetensors"], {"architecture": "resnet18"})
    "it seems to be a network of timm, 'resnet18': timm.create_model('hf-hub:ada/net', pretrained=True) loads it"
    >>> what_it_seems("ada/net", ["net.pth"], None)
    'its weights are in net.pth alone, a pickle, which can run any code and is never loaded'
    """
    has_tensors = any(name.endswith(".safetensors") for name in names)
    if RECORD in names and CHECKPOINT not in names:
        return "it seems to be half of a published run; whoever published it must publish it again"
    if (pickled := pickles(names)) and not has_tensors:
        return f"its weights are in {one_line(pickled[0])} alone, a pickle, which can run any code and is never loaded"
    if "adapter_config.json" in names:
        return "it seems to be an adapter of peft, and not a whole network"
    known: dict[str, Any] = configuration if isinstance(configuration, dict) else {}
    if "architecture" in known or "pretrained_cfg" in known:
        named = _named(known.get("architecture"))
        call = f"timm.create_model('hf-hub:{identifier}', pretrained=True) loads it"
        return f"it seems to be a network of timm{named}: {call}"
    if "model_type" in known or "architectures" in known:
        named = _named(known.get("model_type"))
        call = f"AutoModel.from_pretrained('{identifier}') loads it"
        return f"it seems to be a model of transformers{named}: {call}"
    return "try timm or transformers for what others published"


def _named(value: object) -> str:
    return f", {one_line(value)!r:.80}" if isinstance(value, str) else ""
