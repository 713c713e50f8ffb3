"""Define the candidates of a ranking: registered backbones, checkpoints of runs, and controls to compare them with."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing
from zoo.weights import RandomWeights, WeightSource
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import TrainingSplit
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.build import build_network
from zoo_harness.models.fingerprints import digest_of_source
from zoo_harness.models.input_size import load_network
from zoo_harness.models.modules import find_module
from zoo_harness.models.weight_source import find_local
from zoo_harness.ranking.paired_tests import Behind
from zoo_harness.ranking.readout import Readout
from zoo_harness.records.rank import BehindRecord, Drop, RankedBackbone, ScoreRecord
from zoo_harness.records.run import RunRecord, WeightsRecord

RAW_PIXELS, RANDOM = "raw pixels", "random"
_BLOCK = 512  # images


@dataclass(frozen=True, eq=False)
class OpenNetwork:
    """A network with loaded weights, the layer to read features from, the classifier's path, and the code's digest."""

    network: nn.Module
    weights: WeightsRecord
    preprocessing: Preprocessing
    layer: FeatureLayer
    head: str | None
    code: str


@dataclass
class Candidate:
    """A backbone, the checkpoint of a run, or raw pixels, with the features and scores computed so far.

    A candidate without ``backbone`` and ``run`` stands for raw pixels. ``parameters`` is 0 until the network is built.
    """

    name: str
    backbone: Backbone | None = None
    source: WeightSource = field(default_factory=RandomWeights)
    run: Path | None = None
    run_record: RunRecord | None = None
    control: bool = False
    weights: WeightsRecord | None = None
    preprocessing: Preprocessing | None = None
    parameters: int = 0
    readout: Readout | None = None  # deleted after all scores are computed, to free memory
    width: int = 0
    source_classes: int | None = None
    computed: int = 0
    seconds: float = 0.0
    scores: dict[str, ScoreRecord] = field(default_factory=dict)
    hits: Any = None
    dropped: Drop | None = None
    trained_on_dataset: bool = False

    @property
    def described(self) -> str:
        """The kind and name of the network, such as ``timm resnet18``."""
        if self.run_record is not None:
            return f"{self.run_record.backbone.network_kind} {self.run_record.backbone.network}"
        return f"{self.backbone.network.kind} {self.backbone.network.name}" if self.backbone else "none"

    @property
    def to_fetch(self) -> bool:
        """Whether the weights of this candidate must be downloaded first."""
        return self.backbone is not None and self.source.kind != "random" and find_local(self.backbone) is None

    def open(self, seed: int, input_size: tuple[int, int] | None) -> OpenNetwork:
        """Build the network and load its weights.

        Every round builds the network again, because the networks of many candidates would fill the memory. The
        checkpoint of a run ignores ``input_size`` and keeps its own input size.
        """
        opened = self._of_run() if self.run is not None else self._of_backbone(seed, input_size)
        self.weights, self.preprocessing = opened.weights, opened.preprocessing
        self.parameters = sum(parameter.numel() for parameter in opened.network.parameters())
        return opened

    def _of_backbone(self, seed: int, input_size: tuple[int, int] | None) -> OpenNetwork:
        assert self.backbone is not None  # noqa: S101 - raw pixels have no network
        torch.manual_seed(seed)
        own, tuning = build_network(self.backbone.name, self.backbone.network), self.backbone.tuning("default")
        loaded = load_network(own, self.backbone, self.source, tuning, input_size)
        network, weights = loaded.network, loaded.weights
        head = self.backbone.head.parts[0].path
        published = weights.kind != "random" and self.backbone.has_classifier
        trained = published and not isinstance(find_module(network, head), nn.Identity)
        architecture = self.backbone.network
        return OpenNetwork(
            network,
            weights,
            loaded.preprocessing,
            self.backbone.features[-1],
            head if trained else None,
            digest_of_source(network, architecture.name if architecture.kind == "factory" else ""),
        )

    def _of_run(self) -> OpenNetwork:
        assert self.run is not None  # noqa: S101 - open() calls this for runs only
        model = load_folder(self.run)
        record = model.record
        weights = WeightsRecord(
            kind="run",
            declared=False,
            source=self.run.name,
            filename=None,
            revision=None,
            sha256=record.checkpoint_sha256,
            bytes=None,
            license=record.weights.license,
        )
        head, layer = record.settings.head.parts[0].path, record.backbone.features[-1]
        return OpenNetwork(
            model.network, weights, record.settings.preprocessing, layer, head, record.backbone.source_sha256 or ""
        )

    def ranked(self, tier: int | None, behind: Behind) -> RankedBackbone:
        """Return the row of the ranking's table: the scores, the tier, and the test against the best."""
        backbone, p = self.backbone, behind.p
        return RankedBackbone(
            name=self.name,
            title=backbone.title or backbone.name if backbone else self.name,
            network=self.described,
            derived_from=backbone.derived_from if backbone else None,
            weights=self.weights,
            license=self.weights.license if self.weights else None,
            parameters=self.parameters,
            imagenet_top1=backbone.imagenet_top1 if backbone and self.source.kind != "random" else None,
            preprocessing=self.preprocessing,
            layer=self._layer,
            width=self.width,
            source_classes=self.source_classes,
            images=len(self.hits),
            seconds=round(self.seconds, 3),
            computed=self.computed,
            scores=self.scores,
            tier=tier,
            dropped=self.dropped,
            control=self.control,
            trained_on_dataset=self.trained_on_dataset,
            behind=None
            if p is None
            else BehindRecord(
                difference=behind.difference,
                standard_error=behind.standard_error,
                p=p,
                adjusted_p=behind.adjusted_p,
            ),
        )

    @property
    def _layer(self) -> str:
        if self.run_record is not None:
            return self.run_record.backbone.features[-1].path
        return self.backbone.features[-1].path if self.backbone else RAW_PIXELS


class LazyImages:
    """The training images from ``start`` to ``stop``, which are decoded 512 at a time while the network runs.

    Use this object as a context manager: a thread decodes the next images in advance, until the ``with`` statement
    ends.
    """

    def __init__(
        self, split: TrainingSplit, start: int, stop: int, transform: BatchTransform, device: torch.device
    ) -> None:
        self._split, self._start, self._stop = split, start, stop
        self._transform, self._device = transform, device
        self._blocks: dict[int, Future[ImageData]] = {}
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> LazyImages:
        return self

    def __exit__(self, *_error: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return self._stop - self._start

    def batch(self, start: int, stop: int) -> Tensor:
        """Return the network input of the images from ``start`` to ``stop``; 0 is the first image of this object."""
        if stop - start == 1:  # a caller that samples the split asks for single images
            return self._decode(start, stop).batch(np.arange(1), self._device)[0]
        parts = []
        for block in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            first = block * _BLOCK
            rows = np.arange(max(start, first), min(stop, first + _BLOCK)) - first
            parts.append(self._block(block).batch(rows, self._device)[0])
        return torch.cat(parts)

    def _block(self, number: int) -> ImageData:
        """Return one decoded block of consecutive images, and let the thread decode the next block."""
        wanted = [each for each in (number, number + 1) if each * _BLOCK < len(self)]
        self._blocks = {each: self._blocks.get(each) or self._submit(each) for each in wanted}
        return self._blocks[number].result()

    def _submit(self, number: int) -> Future[ImageData]:
        first = number * _BLOCK
        return self._executor.submit(self._decode, first, min(first + _BLOCK, len(self)))

    def _decode(self, start: int, stop: int) -> ImageData:
        return self._split.decode(self._start + start, self._start + stop, self._transform)
