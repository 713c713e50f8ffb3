"""Predict the classes of images and image files with a loaded checkpoint."""

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

MOST_BATCHED_BYTES = 2**30  # size limit of one input batch; large images are processed in smaller batches


class LoadedModel(nn.Module):
    """Hold a loaded checkpoint that preprocesses images and predicts their classes.

    ``classes`` are the class names in label order. ``record`` is the record of the run that trained the model.
    ``network`` is the torch module without preprocessing. ``epoch`` is the epoch after which the weights were saved;
    ``None`` if an old version of zoo did not record the epoch. The scores in ``record`` were measured with the loaded
    weights.
    """

    def __init__(self, network: nn.Module, record: RunRecord, epoch: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.epoch = epoch
        self.classes = record.dataset.classes
        self._transform = BatchTransform(record.settings.preprocessing)

    def reader(self) -> ImageReader:
        """Return a reader that converts images as the training run converted its images."""
        return ImageReader(self.record.dataset.read_range, gather=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, classes)`` of preprocessed images; two heads are combined as in the training run."""
        heads = tuple(head.path for head in self.record.settings.head.parts)
        return prediction(TunedNetwork(self.network, heads, heads).logits(images), self.record.settings.predict)

    def preprocess(self, images: Images) -> Tensor:
        """Convert one or more images to network input, float32 ``(B, 3, h, w)``, on the model's device.

        ``images`` is a PIL image, a list of PIL images of any sizes, or a uint8 numpy array or torch tensor. PIL images
        may have 8 or 16 bits, or the pixel type of the training images. An array is one image ``(H, W)`` or
        ``(H, W, 3)``, or a batch ``(B, H, W)`` or ``(B, H, W, 3)``. A 3-D array is one RGB image if its last axis has
        size 3, otherwise a batch of grayscale images. Raises :class:`~zoo.errors.UsageError` for any other input, and
        :class:`~zoo.errors.DataError` for an image that cannot be decoded.
        """
        device = next(self.network.parameters()).device
        sized = [self._transform.resize_and_crop(batch.to(device)) for batch in as_batches(images, self.reader())]
        return self._transform.normalise(torch.cat(sized))

    @torch.inference_mode()
    def predict(self, images: Images) -> list[str]:
        """Return the predicted class name of each image; :meth:`preprocess` documents ``images``."""
        best = self(self.preprocess(images)).argmax(1)
        return [self.classes[index] for index in best.tolist()]

    @torch.inference_mode()
    def top(self, images: Images, k: int = 3) -> list[list[tuple[str, float]]]:
        """Return the ``k`` most probable classes of each image with their probabilities, most probable first.

        :meth:`preprocess` documents ``images``. If ``k`` exceeds the number of classes, all classes are returned. The
        probabilities are the softmax of the logits, without calibration.
        """
        return self.likeliest(self(self.preprocess(images)), k)

    def likeliest(self, logits: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """Return the ``k`` most probable classes for logits ``(B, classes)``, in the form that :meth:`top` returns."""
        if not isinstance(k, int) or k < 1:
            message = f"top: k is {shortened(k)}; expected an integer, 1 or more"
            raise UsageError(message, code="option-range", option="k", given=k)
        values, indices = logits.double().softmax(1).topk(min(k, len(self.classes)))
        return [
            [(self.classes[index], value) for index, value in zip(*row, strict=True)]
            for row in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def check_that_it_runs(self) -> None:
        """Raise :class:`~zoo.errors.WeightsError` if the network fails on images of the input size in the record."""
        height, width = self.record.settings.preprocessing.input_size
        name, count = self.record.backbone.network, len(self.classes)
        try:
            logits = self(self.preprocess(torch.zeros(height, width, dtype=torch.uint8)))
        except (RuntimeError, AssertionError, ValueError) as error:  # raised by layers that do not support the shape
            message = f"the network {name} does not run on the {height} x {width} images of its record: {error!s:.200}"
            raise WeightsError(message, code="network-does-not-run") from error
        if logits.shape != (1, count):
            message = f"the network {name} returns shape {tuple(logits.shape)} for one image; expected {count} classes"
            raise WeightsError(message, code="network-does-not-run")


@dataclass(frozen=True)
class FilePrediction:
    """Hold the prediction for one image file: the most probable classes with their probabilities, or an error.

    ``error``: the reason why the file could not be read. ``first_of_many``: whether the file has several pages or
    frames, of which only the first was read.
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    first_of_many: bool = False


def predict_files(
    model: LoadedModel, paths: Sequence[Path], k: int, batch_size: int = 32
) -> Iterator[list[FilePrediction]]:
    """Yield the predictions for image files in order, one list for each batch; an unreadable file yields its error.

    At most one image at a time is in memory at its original size.
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
