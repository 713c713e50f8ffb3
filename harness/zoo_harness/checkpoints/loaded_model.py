"""Loaded model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import UsageError, WeightsError, shortened
from zoo_harness.data.image_input import Images, as_batches
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.tuned_network import TunedNetwork, prediction
from zoo_harness.records.run import RunRecord


class LoadedModel(nn.Module):
    """A published or local checkpoint, ready to predict.

    ``classes`` are the names in label order, ``record`` is the run that made it, ``network`` the bare module.
    """

    def __init__(self, network: nn.Module, record: RunRecord) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.classes = record.dataset.classes
        self._transform = BatchTransform(record.settings.preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for preprocessed images, by the run's own rule where there are two heads."""
        heads = tuple(head.path for head in self.record.settings.head.parts)
        return prediction(TunedNetwork(self.network, heads, heads).logits(images), self.record.settings.predict)

    def preprocess(self, images: Images) -> Tensor:
        """Network input ``(B, 3, h, w)`` in float32, on the model's device, for one image or many.

        ``images`` is a PIL image of any mode of 8 or 16 bits, or a list of them, of any sizes; or a uint8 numpy array
        or torch tensor, one image ``(H, W)`` or ``(H, W, 3)`` or a batch ``(B, H, W)`` or ``(B, H, W, 3)``. Three
        dimensions are one colour image where the last is 3, else a batch of grey images. Raises
        :class:`~zoo.errors.UsageError` for anything else, :class:`~zoo.errors.DataError` for what cannot be decoded.
        """
        device = next(self.network.parameters()).device
        sized = [self._transform.resize_and_crop(batch.to(device)) for batch in as_batches(images)]
        return self._transform.normalise(torch.cat(sized))

    @torch.inference_mode()
    def predict(self, images: Images) -> list[str]:
        """Class names, one for each image; ``images`` as for :meth:`preprocess`."""
        best = self(self.preprocess(images)).argmax(1)
        return [self.classes[index] for index in best.tolist()]

    @torch.inference_mode()
    def top(self, images: Images, k: int = 3) -> list[list[tuple[str, float]]]:
        """The ``k`` likeliest classes of each image with their probabilities, likeliest first; all where ``k`` is more.

        ``images`` as for :meth:`preprocess`. The probabilities are the softmax of the logits, as the network was
        trained to give them, and no more certain than that.
        """
        return self.likeliest(self(self.preprocess(images)), k)

    def likeliest(self, logits: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """What :meth:`top` makes of logits ``(B, classes)``."""
        if not isinstance(k, int) or k < 1:
            raise UsageError(f"top: k is {shortened(k)}, expected a whole number, 1 or more")
        values, places = logits.double().softmax(1).topk(min(k, len(self.classes)))
        return [
            [(self.classes[place], value) for place, value in zip(*row, strict=True)]
            for row in zip(places.tolist(), values.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def check_that_it_runs(self) -> None:
        """Raise :class:`~zoo.errors.WeightsError` where the network does not take images of the record's size."""
        height, width = self.record.settings.preprocessing.input_size
        try:
            logits = self(self.preprocess(torch.zeros(height, width, dtype=torch.uint8)))
        except (RuntimeError, AssertionError, ValueError) as error:  # what layers raise of shapes they do not take
            raise WeightsError(
                f"the network {self.record.backbone.network} does not run on the {height} x {width} images of its "
                f"record: {error!s:.200}"
            ) from error
        if logits.shape != (1, len(self.classes)):
            raise WeightsError(
                f"the network {self.record.backbone.network} gives {tuple(logits.shape)} for one image, the record has "
                f"{len(self.classes)} classes"
            )
