"""Predicts the classes of image files batch by batch, so that no more than one image is held at its own size.

A file that cannot be read costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import DataError
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.data.image_files import read_image

MOST_BATCHED_BYTES = 2**30

"""Of network input; a network for large images gets fewer at a time."""


@dataclass(frozen=True)
class FilePrediction:
    """The likeliest classes of a file with their probabilities, likeliest first; or why it was not read.

    ``first_of_many``: whether the file has several pages or frames, of which only the first was read.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    first_of_many: bool = False


def predict_files(
    model: LoadedModel, paths: Iterable[Path], k: int, batch_size: int = 32
) -> Iterator[list[FilePrediction]]:
    """The predictions of files, in their order, a list for each batch."""
    height, width = model.record.settings.preprocessing.input_size
    size = max(1, min(batch_size, MOST_BATCHED_BYTES // (12 * height * width)))
    waiting: list[Path] = []
    for path in paths:
        waiting.append(path)
        if len(waiting) == size:
            yield _predict(model, waiting, k)
            waiting = []
    if waiting:
        yield _predict(model, waiting, k)


@torch.inference_mode()
def _predict(model: LoadedModel, paths: list[Path], k: int) -> list[FilePrediction]:
    many: set[Path] = set()
    read = [_prepared(model, path, many) for path in paths]
    inputs = [part for part in read if isinstance(part, Tensor)]
    rows = iter(model.likeliest(model(torch.cat(inputs)), k) if inputs else [])
    return [
        FilePrediction(path, tuple(next(rows)), first_of_many=path in many)
        if isinstance(part, Tensor)
        else FilePrediction(path, error=part)
        for path, part in zip(paths, read, strict=True)
    ]


def _prepared(model: LoadedModel, path: Path, many: set[Path]) -> Tensor | str:
    try:
        return model.preprocess(read_image(path, lambda: many.add(path)))
    except DataError as error:
        return str(error)
