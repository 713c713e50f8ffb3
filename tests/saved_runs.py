"""Finished runs of tiny networks, most made without any training, for tests of what becomes of a run afterwards."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo import Backbone, Dataset, Preprocessing, RandomWeights, TimmArchitecture, Training
from zoo_harness.checkpoints.save import digest, save_checkpoint, save_configuration
from zoo_harness.compute.context import ComputeContext
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import replace_head
from zoo_harness.models.tuned_network import TunedNetwork, count_parameters
from zoo_harness.records.run import (
    BackboneRecord,
    DatasetRecord,
    Results,
    RunRecord,
    SettingsRecord,
    SplitRecord,
    WeightsRecord,
    record_file,
)
from zoo_harness.records.subset import Subset
from zoo_harness.runs import provenance
from zoo_harness.runs.plan import Request, prepare_run
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.session import execute_run
from zoo_harness.runs.writer import RunWriter
from zoo_harness.util.progress import Silence

EPOCH = (
    '{"epoch":1,"train_loss":1.0,"train_accuracy":0.5,"evaluation_loss":1.5,"evaluation_accuracy":0.25,'
    '"train_seconds":2.0,"evaluation_seconds":1.0}\n'
)

CLASSES = ("cat", "dog", 'a "quoted", Größe')


def record_of(backbone: Backbone, tuned: TunedNetwork, preprocessing: Preprocessing) -> RunRecord:
    split = SplitRecord(
        split="train", images=3, per_class=(1, 1, 1), pixels=(8, 8), resized=False, fingerprint="0" * 64
    )
    return RunRecord(
        status="finished",
        command=("zoo", "eval"),
        started="2026-11-22T09:30:00+00:00",
        ended="2026-11-22T09:31:00+00:00",
        backbone=BackboneRecord(
            name=backbone.name,
            title=backbone.name,
            network=backbone.network.name,
            network_kind=backbone.network.kind,
            plugin="tests",
            distribution="tests",
            version="1",
            paper=None,
            pretrained_on=None,
            imagenet_top1=None,
            features=backbone.features,
        ),
        weights=WeightsRecord(
            kind="random", declared=False, source="random", filename=None, revision=None, sha256=None, bytes=None,
            license=None,
        ),
        dataset=DatasetRecord(
            name="pets", title="Pets", argument=None, hub_id=None, source="nowhere", revision=None, license=None,
            citation=None, classes=CLASSES, train=split, evaluation=split, per_class=None, limit=None,
            val_fraction=None, subset="all images",
        ),
        settings=SettingsRecord(
            recipe="default",
            recipe_source=None,
            unfreeze=backbone.unfreeze,
            head=backbone.head,
            training=Training(),
            preprocessing=preprocessing,
            predict="cls",
            seed=0,
            device="cpu",
            precision="fp32",
            deterministic=False,
            evaluation_batch_size=32,
        ),
        parameters=count_parameters(tuned),
        versions=provenance.versions(),
        host=provenance.host(torch.device("cpu")),
        results=Results(**dict.fromkeys(Results.model_fields, None) | {"epochs_done": 0}),
        checkpoint_sha256=None,
    )  # fmt: skip


def save_run(backbone: Backbone, folder: Path, **settings: Any) -> nn.Module:
    """A finished run of a network whose every tensor differs from what a constructor makes; give the network."""
    size = backbone.preprocessing and backbone.preprocessing.input_size
    network = build_network(backbone.name, backbone.network, input_size=size)
    heads = replace_head(network, backbone.head, len(CLASSES))
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(torch.rand_like(tensor) * 0.05 if tensor.is_floating_point() else 7)
    record = record_of(
        backbone,
        TunedNetwork(network, heads, heads),
        resolve_preprocessing(backbone, network, backbone.tuning("default")),
    )
    record = record.model_copy(update={"settings": record.settings.model_copy(update=settings)})
    save_checkpoint(network, folder)
    record = record.model_copy(update={"checkpoint_sha256": digest(folder)})
    save_configuration(network, record, folder)
    (folder / "run.json").write_text(record.to_json())
    return network


def train_run(
    tiny_resnet: Backbone, dataset: Dataset, folder: Path, subset: Subset | None = None, *, with_test: bool = False
) -> RunRecord:
    """A run that really trains two epochs of a tiny network with random weights, start to finish."""
    backbone = replace(
        tiny_resnet,
        name="resnet18",  # a name that is declared: the record says by whom
        architecture=TimmArchitecture("test_resnet.r160_in1k"),
        weights=RandomWeights(),
        preprocessing=Preprocessing((32, 32)),
        license=None,
        pretrained_on=None,
    )
    tuning = backbone.tuning("default")
    request = Request(
        backbone=backbone,
        dataset=dataset,
        argument=None,
        tuning=tuning,
        unfreeze=None,
        layer=tuning.features[-1],
        weights=backbone.weights,
        training=Training(epochs=2, learning_rate=1e-2, batch_size=8),
        subset=subset or Subset(),
        compute=ComputeContext(torch.device("cpu")),
        data_dir=None,
        command=("zoo",),
        with_test=with_test,
    )
    folder.mkdir()
    return execute_run(prepare_run(request, Silence()), RunWriter(folder), CachePolicy("host"), LoggingReporter())


def edit_record(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of the record in a folder, ``run.json`` or ``zoo.json``."""
    path = record_file(folder)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def png(colour: int = 0) -> bytes:
    """A PNG image of one grey pixel."""
    chunks = [(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0])), (b"IDAT", zlib.compress(bytes([0, colour])))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in [*chunks, (b"IEND", b"")]
    )


def published_files(folder: Path) -> dict[str, bytes]:
    """What is published of a saved run, by name."""
    return {
        "README.md": b"# A card\n",
        "config.json": (folder / "config.json").read_bytes(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "zoo.json": (folder / "run.json").read_bytes(),
    }
