"""Where each built-in backbone is cut: what is kept, what is saved, and that the two parts are the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo import Backbone, load_registry
from zoo_harness.frozen.partition.partition import partition_network
from zoo_harness.frozen.partition.summary import count_flops
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare

from .shallow_networks import image_size, shallow_network

REGISTRY = load_registry()
BUILT_IN = [record for name, record in REGISTRY.backbones.items() if REGISTRY.owner("backbone", name).built_in]


# The design's measurements: shapes, and GFLOP of a forward pass before and after the cut.
@pytest.mark.parametrize(
    ("name", "shapes", "before", "after"),
    [
        ("vgg19", [[512, 14, 14]], 35.3, 3.70),
        ("densenet201", [[896, 7, 7]], 7.9, 0.67),
        ("efficientnetv2_l", [[640, 7, 7]], 23.9, 0.57),
        ("nfnet_f6", [[1536, 7, 7]], 113.5, 0.87),
        ("vit_l32", [[50, 1024]], 29.5, 1.27),
        ("swin_b", [[7, 7, 1024]], 29.6, 1.24),
        ("coat_lite_small", [[49, 512]], 6.9, 0.97),  # without the class token, which is added in the suffix
        ("cait_s24", [[196, 384], [1, 384]], 18.5, 0.12),
        ("deit_base_distilled", [[198, 768]], 32.4, 2.92),
        ("resnet152v2", [[1024, 7, 7]], 20.3, 1.47),  # this recipe trains three blocks; the last alone was measured
    ],
)
def test_backbones_of_the_paper_are_cut_where_training_starts(
    name: str, shapes: list[list[int]], before: float, after: float
) -> None:
    backbone = REGISTRY.backbone(name)
    tuning = backbone.tuning("paper")
    real = build_network(backbone.name, backbone.network, device="meta")
    with torch.device("meta"):
        shallow = shallow_network(backbone, small_images=False)
        images = torch.empty(2, 3, *resolve_preprocessing(backbone, real, tuning).input_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prepare(real, tuning, 10, example=None).logits(images[:1])
    partition = partition_network(prepare(shallow, tuning, 10, images), images)  # nothing of the suffix is left out
    _prefix, suffix = count_flops(partition, images[:1])
    assert [list(part.shape) for part in partition.kept] == shapes
    assert partition.bytes_per_image == 4 * sum(torch.Size(shape).numel() for shape in shapes)
    assert (counter.get_total_flops() - suffix) / 1e9 == pytest.approx(before, abs=0.06)
    assert suffix / 1e9 == pytest.approx(after, abs=0.006)


def test_classifier_alone_keeps_the_vector_before_its_dropout() -> None:
    backbone = REGISTRY.backbone("efficientnet_v2_s")
    with torch.device("meta"):
        network, images = shallow_network(backbone), torch.empty(2, 3, 64, 64)
    tuning = replace(backbone.tuning("default"), unfreeze=())
    partition = partition_network(prepare(network, tuning, 10, images), images)
    assert [part.shape for part in partition.kept] == [(1280,)]


@pytest.mark.parametrize("backbone", BUILT_IN, ids=lambda backbone: backbone.name)
def test_parts_of_a_backbone_are_the_whole(backbone: Backbone) -> None:
    torch.manual_seed(0)
    tuning = backbone.tuning("default")
    network = shallow_network(backbone)
    size = image_size(backbone) or resolve_preprocessing(backbone, network, tuning).input_size
    images = torch.rand(2, 3, *size) * 2 - 1
    tuned = prepare(network, tuning, 10, images)
    partition = verify_partition(partition_network(tuned, images), images)
    assert partition.reason == ("all of it trains" if backbone.name.endswith("_cifar") else None)
    assert all(partition.reaches(path) for path in (*tuned.trained_paths, tuning.features[-1].path))
