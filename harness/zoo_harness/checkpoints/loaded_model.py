"""A checkpoint that was loaded: it prepares images, and predicts their classes, also of image files in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.errors import DataError, UsageError, WeightsError, shortened
from zoo.image_reader import ImageReader
from zoo_harness.data.image_files import read_image
from zoo_harness.data.image_input import Images, as_batches
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.tuned_network import TunedNetwork, prediction
from zoo_harness.records.run import RunRecord

MOST_BATCHED_BYTES = 2**30  # of network input; a network for large images gets fewer at a time


class LoadedModel(nn.Module):
    """A published or local checkpoint, ready to predict.

    ``classes`` are the names in label order, ``record`` is the run that made it, ``network`` the bare module.
    ``epoch`` is the epoch whose weights these are, ``None`` if the checkpoint comes from a version of zoo that did not
    record it. The scores in ``record`` are those of these weights.
    """

    def __init__(self, network: nn.Module, record: RunRecord, epoch: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.epoch = epoch
        self.classes = record.dataset.classes
        self._transform = BatchTransform(record.settings.preprocessing)

    def reader(self) -> ImageReader:
        """Return a reader that converts images as those of the run were."""
        return ImageReader(self.record.dataset.read_range, gather=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)`` for preprocessed images, by the run's own rule if there are two heads."""
        heads = tuple(head.path for head in self.record.settings.head.parts)
        return prediction(TunedNetwork(self.network, heads, heads).logits(images), self.record.settings.predict)

    def preprocess(self, images: Images) -> Tensor:
        """Return network input ``(B, 3, h, w)`` in float32, on the model's device, for one image or many.

        ``images`` is a PIL image of 8 or 16 bits, or of the type that the run read, or a list of them, of any sizes; or
        a uint8 numpy array or torch tensor, one image ``(H, W)`` or ``(H, W, 3)`` or a batch ``(B, H, W)`` or
        ``(B, H, W, 3)``. A 3-D array is one RGB image if its last axis has size 3, otherwise a batch of grayscale
        images. Raises
        :class:`~zoo.errors.UsageError` for anything else, :class:`~zoo.errors.DataError` for an image that cannot be
        decoded.
        """
        device = next(self.network.parameters()).device
        sized = [self._transform.resize_and_crop(batch.to(device)) for batch in as_batches(images, self.reader())]
        return self._transform.normalise(torch.cat(sized))

    @torch.inference_mode()
    def predict(self, images: Images) -> list[str]:
        """Return class names, one for each image; ``images`` as for :meth:`preprocess`."""
        best = self(self.preprocess(images)).argmax(1)
        return [self.classes[index] for index in best.tolist()]

    @torch.inference_mode()
    def top(self, images: Images, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the ``k`` likeliest classes of each image with their probabilities, likeliest first.

        ``images`` as for :meth:`preprocess`; a ``k`` above the number of classes returns all. The probabilities are the
        softmax of the logits, and not calibrated.
        """
        return self.likeliest(self(self.preprocess(images)), k)

    def likeliest(self, logits: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """Return the result of :meth:`top` for logits ``(B, classes)``."""
        if not isinstance(k, int) or k < 1:
            message = f"top: k is {shortened(k)}; expected a whole number, 1 or more"
            raise UsageError(message, code="option-range", option="k", given=k)
        values, indices = logits.double().softmax(1).topk(min(k, len(self.classes)))
        return [
            [(self.classes[index], value) for index, value in zip(*row, strict=True)]
            for row in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def check_that_it_runs(self) -> None:
        """Raise :class:`~zoo.errors.WeightsError` if the network does not take images of the record's size."""
        height, width = self.record.settings.preprocessing.input_size
        name, count = self.record.backbone.network, len(self.classes)
        try:
            logits = self(self.preprocess(torch.zeros(height, width, dtype=torch.uint8)))
        except (RuntimeError, AssertionError, ValueError) as error:  # of layers that do not take the shape
            message = f"the network {name} does not run on the {height} x {width} images of its record: {error!s:.200}"
            raise WeightsError(message, code="network-does-not-run") from error
        if logits.shape != (1, count):
            message = f"the network {name} gives {tuple(logits.shape)} for one image; expected {count} classes"
            raise WeightsError(message, code="network-does-not-run")


@dataclass(frozen=True)
class FilePrediction:
    """The likeliest classes of a file with their probabilities, likeliest first; or the reason it was not read.

    ``first_of_many``: whether the file has several pages or frames, of which only the first was read.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    first_of_many: bool = False


def predict_files(
    model: LoadedModel, paths: Sequence[Path], k: int, batch_size: int = 32
) -> Iterator[list[FilePrediction]]:
    """Iterate over the predictions of files, in their order, a list for each batch; unreadable ones do no harm.

    No more than one image is held at its own size.
    """
    height, width = model.record.settings.preprocessing.input_size
    size = max(1, min(batch_size, MOST_BATCHED_BYTES // (12 * height * width)))
    for start in range(0, len(paths), size):
        yield _predict(model, paths[start : start + size], k)


@torch.inference_mode()
def _predict(model: LoadedModel, paths: Sequence[Path], k: int) -> list[FilePrediction]:
    reader = model.reader()
    read = [_prepared(model, path, reader) for path in paths]
    inputs = [part for part in read if isinstance(part, Tensor)]
    rows = iter(model.likeliest(model(torch.cat(inputs)), k) if inputs else [])
    return [
        FilePrediction(path, tuple(next(rows)), first_of_many=str(path) in reader.notes.paged)
        if isinstance(part, Tensor)
        else FilePrediction(path, error=part)
        for path, part in zip(paths, read, strict=True)
    ]


def _prepared(model: LoadedModel, path: Path, reader: ImageReader) -> Tensor | str:
    try:
        return model.preprocess(read_image(path, reader))
    except DataError as error:
        return str(error)
