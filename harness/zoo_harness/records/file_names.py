"""Which files a published run consists of, in a repository or in a folder; nothing here runs code or is a pickle."""

from __future__ import annotations

import re
from collections.abc import Iterable

CARD = "README.md"
CHECKPOINT = "model.safetensors"
CONFIGURATION = "config.json"
RECORD = "zoo.json"
HISTORY = "history.jsonl"
CONFUSION = "confusion.json"
SAMPLES = "samples.png"
PLOTS = ("loss.png", "accuracy.png", "learning_rate.png", "confusion.png", "layers.png", SAMPLES)

# Without these a tree is not a published run.
REQUIRED_FILES = (CARD, CHECKPOINT, CONFIGURATION, RECORD)
PUBLISHED_FILES = (*REQUIRED_FILES, HISTORY, CONFUSION, "*.png")
_PLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.png")
_PICKLE = re.compile(r".*\.(?:bin|pt|pth|pkl|pickle|ckpt)", re.IGNORECASE)


def is_published(name: str) -> bool:
    """Whether a file of this name, relative to the top of the tree, is one of a published run.

    >>> [is_published(name) for name in ("zoo.json", "loss.png", "run.json", "plots/loss.png", "pytorch_model.bin")]
    [True, True, False, False, False]
    """
    return name in PUBLISHED_FILES[:-1] or _PLOT.fullmatch(name) is not None


def pickles(names: Iterable[str]) -> list[str]:
    """The names that are those of pickles, which may run any code when they are loaded.

    >>> pickles(["config.json", "pytorch_model.bin"])
    ['pytorch_model.bin']
    """
    return [name for name in names if _PICKLE.fullmatch(name)]


CHECKPOINT = "model.safetensors"
CONFIGURATION = "config.json"
