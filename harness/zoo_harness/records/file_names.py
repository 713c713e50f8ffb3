"""The file names of a published run, in a repository or a folder; none of these files is a pickle or runs code."""

from __future__ import annotations

import re
from collections.abc import Iterable

CARD = "README.md"
CHECKPOINT = "model.safetensors"
CHECKPOINTS = "checkpoints"  # the folder of the weights that a run saves beside its main checkpoint; never published
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
    """Return whether a file is part of a published run; ``name`` is the file's path relative to the repository's root.

    >>> [is_published(name) for name in ("zoo.json", "loss.png", "run.json", "plots/loss.png", "pytorch_model.bin")]
    [True, True, False, False, False]
    """
    return name in PUBLISHED_FILES[:-1] or _PLOT.fullmatch(name) is not None


def pickles(names: Iterable[str]) -> list[str]:
    """Return the names that belong to pickle files; loading a pickle can run arbitrary code.

    >>> pickles(["config.json", "pytorch_model.bin"])
    ['pytorch_model.bin']
    """
    return [name for name in names if _PICKLE.fullmatch(name)]
