"""The images of a ranking, which a thread decodes in advance."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from zoo.backbone import Preprocessing
from zoo.errors import DataError
from zoo.registry import load_registry
from zoo_harness.data.loading import TrainingSplit, load_training_split
from zoo_harness.data.subset import Subset
from zoo_harness.data.transform import BatchTransform
from zoo_harness.runs import rank_candidates
from zoo_harness.runs.rank_candidates import LazyImages

TRANSFORM = BatchTransform(Preprocessing(input_size=(16, 16)))
CPU = torch.device("cpu")


@pytest.fixture
def split(tmp_path: Path) -> TrainingSplit:
    """24 photographs of two classes, each of its own brightness."""
    for number in range(24):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((20, 20, 3), 10 * number, np.uint8)).save(folder / f"{number:02d}.png")
    dataset, argument = load_registry().dataset(f"imagefolder:{tmp_path}")
    return load_training_split(dataset, argument, None, Subset())


def test_batches_across_blocks_equal_images_that_are_decoded_alone(
    split: TrainingSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_candidates, "_BLOCK", 5)
    alone = [split.decode(3 + row, 4 + row, TRANSFORM).batch(np.arange(1), CPU)[0] for row in range(18)]
    with LazyImages(split, 3, 21, TRANSFORM, CPU) as images:
        found = [images.batch(start, min(start + 7, 18)) for start in range(0, 18, 7)]
        assert torch.equal(images.batch(9, 10), alone[9])
    assert torch.equal(torch.cat(found), torch.cat(alone))
    assert len({float(image.mean()) for image in alone}) == 18


def test_one_block_is_decoded_in_advance_and_the_thread_ends(
    split: TrainingSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_candidates, "_BLOCK", 6)
    decoded, complete = [], threading.Event()
    decode = LazyImages._decode

    def note(self: LazyImages, start: int, stop: int) -> object:
        decoded.append((start, stop, threading.current_thread()))
        found = decode(self, start, stop)
        if start == 6:
            complete.set()
        return found

    monkeypatch.setattr(LazyImages, "_decode", note)
    with LazyImages(split, 0, 24, TRANSFORM, CPU) as images:
        images.batch(0, 2)
        assert complete.wait(30)  # nobody has asked for the second block yet
    assert [(start, stop) for start, stop, _thread in decoded] == [(0, 6), (6, 12)]
    assert not decoded[0][2].is_alive()


def test_an_image_that_vanished_is_an_error_of_the_batch_that_needs_it(
    split: TrainingSplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_candidates, "_BLOCK", 12)
    for path in tmp_path.rglob("2*.png"):
        path.unlink()
    with LazyImages(split, 0, 24, TRANSFORM, CPU) as images, pytest.raises(DataError):
        images.batch(0, 24)
