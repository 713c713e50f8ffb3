"""Training the suffix on what the frozen part gave once: the same bits as training the whole network."""

from __future__ import annotations

import copy
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import timm
import torch

from zoo import (
    Backbone,
    DeviceMemoryError,
    FactoryArchitecture,
    FeatureLayer,
    Head,
    Preprocessing,
    RandomWeights,
    TimmArchitecture,
    Training,
    UsageError,
    load_registry,
)
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.batches import ImageSource
from zoo_harness.evaluation.split_evaluation import evaluate_split
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.partition.partition import Partition
from zoo_harness.records.run import FrozenPartRecord
from zoo_harness.records.subset import Subset
from zoo_harness.runs.frozen_features import _FrozenSplit, open_trainable_model
from zoo_harness.runs.opening import check_sizes
from zoo_harness.runs.plan import Request, RunPlan, prepare_run
from zoo_harness.training.loop import Trainer, batches, starting_state
from zoo_harness.training.state import mutable_tensors
from zoo_harness.util.progress import Silence

TRAINING = Training(epochs=2, learning_rate=1e-2, batch_size=8)


def backbone(network: str, unfreeze: str, head: str, layer: str, width: int) -> Backbone:
    return Backbone(
        name="resnet18",  # a name that is declared: the record says by whom
        weights=RandomWeights(),
        architecture=TimmArchitecture(network),
        unfreeze=(unfreeze,),
        head=Head(head),
        features=(FeatureLayer(layer, width),),
        license=None,
        paper=None,
        pretrained_on=None,
        imagenet_top1=None,
    )


RESNET = backbone("test_resnet.r160_in1k", "layer4", "fc", "layer3", 192)
NETWORKS = [
    RESNET,
    backbone("test_vit.r160_in1k", "blocks.5", "head", "norm", 64),
    backbone("test_efficientnet.r160_in1k", "blocks.3", "classifier", "blocks.2", 32),
    backbone("test_convnext.r160_in1k", "stages.3", "head.fc", "stages.2", 48),
]


def planned(
    chosen: Backbone = RESNET,
    training: Training = TRAINING,
    seed: int = 0,
    limit: int = 24,
    frozen_batchnorm: Literal["eval", "train"] = "eval",
) -> RunPlan:
    dataset, argument = load_registry().dataset("digits")
    tuning = chosen.tuning("default")
    request = Request(
        backbone=chosen,
        dataset=dataset,
        argument=argument,
        tuning=tuning,
        unfreeze=None,
        layer=tuning.features[0],
        weights=chosen.weights,
        training=training,
        subset=Subset(limit=limit),
        compute=ComputeContext(torch.device("cpu"), seed=seed),
        data_dir=None,
        command=("zoo",),
        frozen_batchnorm=frozen_batchnorm,
    )
    return prepare_run(request, Silence())


def trained(prepared: RunPlan, policy: CachePolicy):
    lines: list[str] = []
    with open_trainable_model(prepared, policy, Silence(), lines.append) as (trainable, made):
        state = starting_state(prepared.tuned, prepared.request.training)
        Trainer(
            trainable, prepared.request.training, prepared.request.compute, state, None, lambda *_: None, Silence()
        ).run()
        result = evaluate_split(trainable, trainable.evaluation, prepared.request.compute, None, Silence())
    return made, lines, result


@pytest.mark.parametrize("chosen", NETWORKS, ids=lambda chosen: chosen.network.name.partition(".")[0])
def test_the_suffix_trains_to_the_same_bits_as_the_whole_network(chosen: Backbone, tmp_path: Path) -> None:
    whole = planned(chosen)
    made, lines, expected = trained(whole, CachePolicy("off", folder=tmp_path))
    assert (made.reason, lines) == ("--cache off", ["every epoch runs the whole network: --cache off"])
    for cache in ("host", "disk"):
        suffix = planned(chosen)
        made, lines, result = trained(suffix, CachePolicy(cache, folder=tmp_path / cache))
        assert (made.reason, made.place, made.computed) == (None, cache, 48)
        assert len(lines) == 1
        assert lines[0].startswith("frozen part: ran once for 48 images")
        assert (result.loss, result.accuracy) == (expected.loss, expected.accuracy)
        states = [prepared.tuned.network.state_dict() for prepared in (whole, suffix)]
        assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


def test_frozen_batchnorm_in_training_mode_moves_as_in_a_plain_loop(tmp_path: Path) -> None:
    """A loop as that of the reports: the whole network in training mode, an optimizer of what trains alone."""
    prepared = planned(frozen_batchnorm="train", training=replace(TRAINING, keep="best"))
    network, before = copy.deepcopy(prepared.tuned.network), copy.deepcopy(prepared.tuned.network.state_dict())
    made, _lines, _result = trained(prepared, CachePolicy("auto", folder=tmp_path))
    assert made.reason == "--frozen-batchnorm train: the statistics of 12 frozen BatchNorm layers move"
    assert made.place is None

    data, cpu = prepared.data.train, torch.device("cpu")
    optimizer = torch.optim.Adam([each for each in network.parameters() if each.requires_grad], lr=1e-2)
    network.train()
    for epoch in (1, 2):
        for indices in batches(len(data), 8, seed=0, epoch=epoch):
            images, labels = data.batch(indices, cpu)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
    found, expected = prepared.tuned.network.state_dict(), network.state_dict()
    assert [name for name, value in expected.items() if not torch.allclose(value, found[name], rtol=1e-4)] == []
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    moved = {name for name, value in found.items() if not torch.equal(value, before[name])}
    assert moved.isdisjoint(frozen)
    parameters = prepared.record.parameters
    assert len([name for name in moved if "running" in name and not name.startswith("layer4")]) == 24
    assert (parameters.moving_layers, parameters.moving_buffers) == (12, 36)
    assert {"bn1.running_mean", "layer1.0.bn1.running_var"} <= mutable_tensors(prepared.tuned).keys()


def test_frozen_batchnorm_in_training_mode_needs_such_layers() -> None:
    with pytest.raises(UsageError) as refused:
        planned(NETWORKS[1], frozen_batchnorm="train")
    assert (refused.value.code, refused.value.facts["option"]) == ("option-unused", "frozen_batchnorm")
    assert planned().record.parameters.moving_layers == 0


CODE = """
import timm
from timm.models.resnet import ResNet

class Halved(ResNet):
    def forward(self, images):
        logits = super().forward(images)
        return logits / 2

def make():
    network = timm.create_model("test_resnet.r160_in1k")
    network.__class__ = Halved
    return network
"""


def of_code(module: str, code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The backbone whose network a module of the user makes."""
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    factory = FactoryArchitecture(f"{module}:make")
    return replace(RESNET, architecture=factory, preprocessing=Preprocessing((64, 64)))


def test_a_network_that_cannot_be_recorded_trains_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = CODE.replace("logits / 2", "logits / 2 if logits.max() > 1 else logits")
    halved = of_code("branches_on_logits", code, tmp_path, monkeypatch)
    made, lines, _result = trained(planned(halved), CachePolicy("disk", folder=tmp_path / "kept"))
    assert made.reason == "its forward method branches on the values of a tensor"
    assert lines == [f"every epoch runs the whole network: {made.reason}"]


def test_a_record_of_a_replayed_network_still_loads() -> None:
    older = {"reason": None, "kept": ["layer3 192x4x4"], "bytes_per_image": 12288, "place": "host", "replayed": True}
    assert FrozenPartRecord.model_validate(older).replayed


def test_outputs_of_code_that_was_changed_since_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changing = of_code("is_changed_later", CODE, tmp_path, monkeypatch)
    policy = CachePolicy("disk", folder=tmp_path / "kept")
    assert trained(planned(changing), policy)[0].computed == 48
    assert trained(planned(changing), policy)[0].computed == 0
    (tmp_path / "is_changed_later.py").write_text(CODE + "\n# another version\n")
    assert trained(planned(changing), policy)[0].computed == 48  # the file tells
    layer = timm.models.resnet.ResNet.forward_features
    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_features", lambda net, images: layer(net, images * 1.01))
    _made, _lines, expected = trained(planned(), CachePolicy("off", folder=tmp_path))
    monkeypatch.undo()
    assert trained(planned(), policy)[0].computed == 48
    monkeypatch.setattr(timm.models.resnet.ResNet, "forward_features", lambda net, images: layer(net, images * 1.01))
    made, lines, result = trained(planned(), policy)  # no file tells, but the outputs do
    assert made.computed == 48
    assert "cached outputs of the train split differ from what the network computes now" in lines[0]
    assert (result.loss, result.accuracy) == (expected.loss, expected.accuracy)


def test_rows_that_were_forged_with_a_right_checksum_are_not_used(tmp_path: Path) -> None:
    policy = CachePolicy("disk", folder=tmp_path)
    made, _lines, expected = trained(planned(), policy)
    assert made.computed == 48
    for path in tmp_path.glob("*/*.chunk"):  # all but the first two images, which were once the only ones compared
        content = path.read_bytes()[:-4]
        width = len(content) // 24
        forged = content[: 2 * width] + content[2 * width : 3 * width] * 22
        path.write_bytes(forged + zlib.crc32(forged).to_bytes(4, "little"))
    made, lines, result = trained(planned(), policy)
    assert made.computed == 48
    assert sum("differ from what the network computes now" in line for line in lines) == 2
    assert (result.loss, result.accuracy) == (expected.loss, expected.accuracy)


def test_a_second_run_with_another_seed_and_rate_computes_nothing(tmp_path: Path) -> None:
    policy = CachePolicy("disk", folder=tmp_path)
    pretrained = torch.random.get_rng_state()
    first = planned()
    trained(first, policy)
    torch.random.set_rng_state(pretrained)
    second = planned(training=replace(TRAINING, learning_rate=1e-3, optimizer="adamw"))
    made, lines, _result = trained(second, policy)
    assert made.computed == 0
    assert lines[0].endswith("of outputs are read from the cache of an earlier run")
    other_images = planned(limit=20)
    assert trained(other_images, policy)[0].computed == 40
    other_weights = planned(seed=1)  # random ones
    assert trained(other_weights, policy)[0].computed == 48


def with_room_for(images_at_once: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the pass over the images run out of memory with more of them, and return the sizes that were tried."""
    prefix, tried = Partition.prefix, list[int]()

    def filling(*_arguments: object) -> int:
        monkeypatch.setattr(Partition, "prefix", limited)
        return 32

    def limited(self: Partition, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tried.append(len(images))
        if len(images) > images_at_once:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7.00 GiB.")
        return prefix(self, images)

    monkeypatch.setattr(_FrozenSplit, "_batch_size", filling)
    return tried


def test_a_device_that_is_full_gets_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _made, _lines, expected = trained(planned(), CachePolicy("off", folder=tmp_path))
    tried = with_room_for(9, monkeypatch)
    made, _lines, result = trained(planned(), CachePolicy("host", folder=tmp_path))
    assert made.computed == 48
    assert tried == 2 * [24, 12, 6, 6, 6, 6]
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)


def test_a_device_without_room_for_one_image_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = with_room_for(0, monkeypatch)
    with pytest.raises(DeviceMemoryError, match=r"for one image: .*Tried to allocate 7\.00 GiB.*--batch-size"):
        trained(planned(), CachePolicy("host", folder=tmp_path))
    assert tried == [24, 12, 6, 3, 1]


@pytest.mark.parametrize("cache_dtype", ["fp16", "bf16"])
def test_half_the_space_changes_the_result_by_rounding_alone(cache_dtype: str, tmp_path: Path) -> None:
    exact, halved = planned(), planned()
    compute = replace(halved.request.compute, cache_dtype=cache_dtype)
    halved = replace(halved, request=replace(halved.request, compute=compute))
    policy = CachePolicy("host", folder=tmp_path)
    whole, _lines, expected = trained(exact, policy)
    made, _lines, result = trained(halved, policy)
    assert made.computed == 48  # not those of the exact ones
    assert made.bytes_per_image is not None
    assert whole.bytes_per_image == 2 * made.bytes_per_image
    assert made.kept[0].endswith({"fp16": " as float16", "bf16": " as bfloat16"}[cache_dtype])
    assert result.loss != expected.loss
    assert result.loss == pytest.approx(expected.loss, rel=1e-2)


def test_augmentation_without_views_runs_the_whole_network(tmp_path: Path) -> None:
    training = replace(TRAINING, augment=("flip",))
    made, lines, _result = trained(planned(training=training), CachePolicy("auto", folder=tmp_path))
    assert made.reason == "augmentation changes the images in every epoch"
    assert lines == [f"every epoch runs the whole network: {made.reason}"]


def test_more_processes_than_images_are_refused() -> None:
    plan = planned(limit=2)
    with pytest.raises(UsageError) as refused:
        check_sizes(len(plan.data.train), len(plan.data.evaluation), "test", epochs=1, processes=3)
    assert (refused.value.code, refused.value.facts["given"]) == ("too-many-processes", 2)


def test_augmented_views_are_kept_and_taken_in_turn(tmp_path: Path) -> None:
    training = Training(epochs=3, learning_rate=1e-2, batch_size=8, augment=("crop", "flip"), views=2)
    prepared = planned(training=training)
    with open_trainable_model(prepared, CachePolicy("host", folder=tmp_path), Silence(), print) as (trainable, made):
        assert (made.reason, made.computed) == (None, 24 * 3 + 24)
        whole = ImageSource(prepared.data.train, torch.device("cpu"), training.augment)
        plan = [np.arange(24)]
        for epoch, view in ((1, 1), (2, 2), (3, 1)):
            inputs, labels = next(iter(trainable.train.epoch(epoch, plan)))
            images, expected = next(iter(whole.epoch(view, plan)))
            prepared.tuned.eval()
            torch.testing.assert_close(trainable.logits(inputs), prepared.tuned.logits(*images), rtol=1e-4, atol=1e-5)
            assert torch.equal(labels, expected)
        inputs, _labels = next(iter(trainable.train.in_order(24)))
        images, _labels = next(iter(whole.in_order(24)))
        torch.testing.assert_close(trainable.logits(inputs), prepared.tuned.logits(*images), rtol=1e-4, atol=1e-5)


def test_where_all_of_it_trains_there_is_nothing_to_keep(tmp_path: Path) -> None:
    everything = replace(RESNET, unfreeze=("*",))
    made, _lines, _result = trained(planned(everything), CachePolicy("auto", folder=tmp_path))
    assert made.reason is not None
    assert "trains" in made.reason
    assert not list(tmp_path.iterdir())


def test_a_budget_that_is_too_small_moves_the_outputs_to_the_disk(tmp_path: Path) -> None:
    made, _lines, _result = trained(planned(), CachePolicy("auto", budget=1000, folder=tmp_path))
    assert (made.reason, made.place) == (None, "disk")


def test_a_layer_of_the_frozen_part_is_not_reached_by_the_suffix(tmp_path: Path) -> None:
    with open_trainable_model(planned(), CachePolicy("host", folder=tmp_path), Silence(), print) as (trainable, _made):
        assert [trainable.reaches(path) for path in ("layer3", "layer4", "global_pool", "fc")] == [
            False,
            True,
            True,
            True,
        ]
