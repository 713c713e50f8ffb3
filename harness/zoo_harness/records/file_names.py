"""Names of the files of a published run, in a repository or a folder; none of them runs code or is a pickle."""

from __future__ import annotations

import re
from collections.abc import Iterable

CARD = "README.md"
CHECKPOINT = "model.safetensors"
CHECKPOINTS = "checkpoints"  # the folder of the weights that a run keeps beside its main checkpoint; never published
CONFIGURATION = "config.json"
RECORD = "zoo.json"
HISTORY = "history.jsonl"
STEPS = "steps.jsonl"
CONFUSION = "confusion.json"
PREDICTIONS = "predictions.safetensors"
SAMPLES = "samples.png"
PLOTS = ("loss.png", "accuracy.png", "learning_rate.png", "confusion.png", "layers.png", SAMPLES)

REQUIRED_FILES = (CARD, CHECKPOINT, CONFIGURATION, RECORD)
PUBLISHED_FILES = (*REQUIRED_FILES, HISTORY, CONFUSION, PREDICTIONS, "*.png")
_PLOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.png")
_PICKLE = re.compile(r".*\.(?:bin|pt|pth|pkl|pickle|ckpt)", re.IGNORECASE)


def is_published(name: str) -> bool:
    """Return whether a file of this name, relative to the top of the tree, belongs to a published run.

    >>> [is_published(name) for name in ("zoo.json", "loss.png", "run.json", "plots/loss.png", "pytorch_model.bin")]
    [True, True, False, False, False]
    """
    return name in PUBLISHED_FILES[:-1] or _PLOT.fullmatch(name) is not None


def pickles(names: Iterable[str]) -> list[str]:
    """Return the names of pickles, which may run any code when they are loaded.

    >>> pickles(["config.json", "pytorch_model.bin"])
    ['pytorch_model.bin']
    """
    return [name for name in names if _PICKLE.fullmatch(name)]
