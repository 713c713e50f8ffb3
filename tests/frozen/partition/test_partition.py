"""A partition: prefix and suffix compute the same as the whole network, bit for bit, or the whole network trains."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from zoo import Backbone, DualHead, FactoryArchitecture, FeatureLayer, Head, Preprocessing, RandomWeights
from zoo.backbone import Training, Tuning
from zoo_harness.frozen.partition.partition import Partition, partition_network
from zoo_harness.frozen.partition.summary import count_flops, describe_partition
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.modules import capture
from zoo_harness.models.surgery import prepare
from zoo_harness.models.tuned_network import TunedNetwork

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = 5


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def tuned_network(network: nn.Module, images: Tensor, *unfreeze: str, head: Head | DualHead) -> TunedNetwork:
    tuning = Tuning("default", unfreeze, head, Training(), (FeatureLayer("unused", 1),))
    return prepare(network, tuning, CLASSES, images)


def waken(network: nn.Module) -> None:
    """Give weights that start at or near zero a size, so that no gradient is cut off."""
    for parameter in network.parameters():
        if float(parameter.detach().abs().max()) < 1e-3:
            nn.init.uniform_(parameter, 0.1, 1)


def trained(tuned: TunedNetwork, logits: Callable[[], tuple[Tensor, ...]], steps: int = 3) -> dict[str, Tensor]:
    """Return the results of some training steps: logits of each, last gradients, and all tensors of the network."""
    tuned.train()
    torch.manual_seed(1)
    random.seed(1)
    optimizer = torch.optim.Adam(tuned.trained_parameters().values(), lr=1e-2)
    outcome: dict[str, Tensor] = {}
    for step in range(steps):
        optimizer.zero_grad()
        parts = logits()
        outcome |= {f"logits {place}, step {step}": part.detach() for place, part in enumerate(parts)}
        torch.stack(
            [nn.functional.cross_entropy(part, torch.arange(len(part)) % CLASSES) for part in parts]
        ).sum().backward()
        optimizer.step()
    gradients = {name: value.grad for name, value in tuned.trained_parameters().items()}
    outcome |= {f"gradient of {name}": value for name, value in gradients.items() if value is not None}
    outcome |= {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    tuned.eval()
    with torch.no_grad():
        outcome |= {f"logits {place}": part for place, part in enumerate(logits())}
    return outcome


def assert_same_training(partition: Partition, images: Tensor) -> None:
    network = partition.tuned.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    whole = trained(partition.tuned, lambda: partition.tuned.logits(images.clone()))
    network.load_state_dict(before)
    partition.tuned.eval()
    kept = tuple(values.clone(memory_format=torch.contiguous_format) for values in partition.prefix(images.clone()))
    parts = trained(partition.tuned, lambda: partition.suffix(kept))
    assert whole.keys() == parts.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []
    assert any(not torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# timm's families


@pytest.mark.parametrize(
    ("name", "unfreeze", "head", "kept"),
    [
        ("test_resnet", "layer4.0.conv2", "fc", {"layer4.0.act1", "layer4.0.downsample"}),
        ("test_resnet", "layer4", "fc", {"layer3"}),
        ("test_vit", "blocks.5", "head", {"blocks.4"}),
        ("test_vit4", "blocks.4.mlp", "head", None),
        ("test_vit_relpos", "blocks.5.attn", "head", None),
        ("test_efficientnet", "blocks.3", "classifier", {"blocks.2"}),
        ("test_nfnet", "stages.3", "head.fc", {"stages.2"}),
        ("test_byobnet", "stages.3", "head.fc", None),
        ("test_convnext", "stages.3.blocks", "head.fc", None),
        ("test_mambaout", "stages.2.blocks.2.conv", "head.fc", None),
        ("test_maxvit", "stages.1.blocks.0.attn_grid", "head.fc", None),
        ("test_coatnet", "stages.1", "head.fc", None),
    ],
)
def test_networks_of_timm_train_as_whole(name: str, unfreeze: str, head: str, kept: set[str] | None) -> None:
    network = timm.create_model(name, drop_path_rate=0.5, drop_rate=0.2)
    waken(network)
    fixed = name.startswith(("test_vit", "test_maxvit", "test_coatnet"))
    images = torch.rand(3, *network.default_cfg["input_size"]) if fixed else torch.rand(3, 3, 64, 64)
    tuned = tuned_network(network, images, unfreeze, head=Head(head))
    partition = partition_network(tuned, images)
    assert partition.reason is None
    if kept is not None:
        assert {part.name for part in partition.kept} == kept
    assert_same_training(partition, images)
    prefix, suffix = count_flops(partition, images)
    assert prefix > suffix > 0


# A network of our own, whose forward method is whatever a test makes it


class Net(nn.Module):
    """Frozen stem and further frozen modules; ``block`` and ``fc`` train; ``flow`` is the forward method."""

    def __init__(self, flow: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.flow = flow
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3)
        )
        self.between = nn.Dropout2d(0.3, inplace=True)
        self.frozen = nn.Conv2d(8, 8, 3, padding=1)
        self.pair = Pair()
        self.sums = Sums()
        self.counts = Counts()
        self.caches = Caches()
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)
        )
        self.fc = nn.Linear(8, CLASSES)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.flow(self, images)

    def end(self, values: Tensor) -> Tensor:
        return self.fc(values.mean((2, 3)))


class Pair(nn.Module):
    """Reads the values of its input, and puts out two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        return (values * self.weight, values * 2) if values.mean().item() > -5 else (values, values)


class Sums(nn.Module):
    """Writes to its input, a list."""

    def forward(self, values: list[Tensor]) -> Tensor:
        values[1] = values[1] * 2
        return values[0] + values[1]


class Counts(nn.Module):
    """Has a buffer that changes whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values * self.calls


class Caches(nn.Module):
    """Caches a function of its weights, as LeViT caches attention biases in inference."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 1, 1))
        self.computed: dict[str, Tensor] = {}

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            return values * self.weight.exp()
        if str(values.device) not in self.computed:
            self.computed[str(values.device)] = self.weight.exp()
        return values * self.computed[str(values.device)]


def straight(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.between(net.stem(x))))


def skip_across_the_cut(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    y = net.block(x)
    y += x
    return net.end(y)


def suffix_writes_to_kept_tensors(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    flat = x.view(x.shape[0], 8, -1)
    x.mul_(net.fc.weight[0, 0])
    return net.fc(flat.mean(2))


def relu_in_place_before_the_block(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    y = nn.functional.relu(x, inplace=True)
    return net.end(net.block(y) + x)


def asks_for_the_mode(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    if net.training:
        x = x + torch.randn_like(x)
    return net.end(net.block(x))


def dropout_as_a_function(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(nn.functional.dropout(net.stem(x), 0.5, net.training)))


def stochastic_depth(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.block(x)
    if net.training:
        y = y * torch.empty(x.shape[0], 1, 1, 1, device=x.device).bernoulli_(0.5).div_(0.5)
    return net.end(x + y)


def asks_for_shapes(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    batch, channels, height, width = x.shape
    if height != width or not isinstance(x, Tensor):
        raise ValueError("not square")
    x = torch.stack([x[:, place] for place in range(channels)], 1)
    x = x.permute(0, 2, 3, 1).reshape(batch * height, int(width), channels)
    return net.end(net.block(x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)))


def frozen_part_sees_windows(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    batch, channels, height, width = x.shape
    x = net.frozen(x.view(batch, channels, height // 2, 2, width).transpose(1, 2).reshape(-1, channels, 2, width))
    return net.end(net.block(x).view(batch, -1, channels, 2, width).sum(1))


def mask_that_does_not_depend_on_images(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    mask = torch.ones(x.shape[0], 1, 8, 8, device=x.device)
    mask[:, :, 0] = 0.5
    mask.mul_(2)
    return net.end(net.block(x) * mask)


def block_runs_twice(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.frozen(net.block(net.frozen(net.stem(x))))))


def frozen_module_runs_on_both_sides(net: Net, x: Tensor) -> Tensor:
    return net.end(net.frozen(net.block(net.frozen(net.stem(x)))))


def dense(net: Net, x: Tensor) -> Tensor:
    outputs = [net.stem(x)]
    for _ in range(2):
        outputs.append(net.frozen(outputs[-1]))
    y = net.block(torch.cat(outputs, 1).view(x.size(0), 3, 8, 8, 8).sum(1))
    return net.end(torch.cat([*outputs, y], 1).view(x.size(0), 4, 8, 8, 8).sum(1))


def two_outputs_and_control_flow_in_a_frozen_module(net: Net, x: Tensor) -> Tensor:
    one, other = net.pair(net.stem(x))
    return net.end(net.block(one) + other)


def frozen_module_writes_to_its_list(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.sums([net.stem(x), net.frozen(net.stem(x))])))


def frozen_module_counts(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.counts(net.stem(x))))


def frozen_module_caches(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.caches(net.stem(x))))


def network_counts(net: Net, x: Tensor) -> Tensor:
    net.seen += 1
    net.last_seen = x
    return net.end(net.block(net.stem(x)) * net.seen)


def images_are_changed_in_place(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.stem(x.mul_(0.5))))


class Halve(torch.autograd.Function):
    """An operation whose gradient is its own."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:  # noqa: ARG004
        return values / 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        return gradient


def has_gradients_of_its_own_before_the_cut(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(Halve.apply(net.stem(x))))


@pytest.mark.parametrize(
    ("flow", "kept"),
    [
        (straight, {"stem"}),
        (skip_across_the_cut, {"frozen"}),
        (suffix_writes_to_kept_tensors, {"stem"}),
        (relu_in_place_before_the_block, None),
        (asks_for_the_mode, {"stem"}),
        (dropout_as_a_function, {"stem"}),
        (stochastic_depth, {"stem"}),
        (asks_for_shapes, None),
        (frozen_part_sees_windows, {"transpose"}),
        (mask_that_does_not_depend_on_images, {"stem"}),
        (block_runs_twice, {"frozen"}),
        (frozen_module_runs_on_both_sides, {"frozen"}),
        (dense, None),
        (two_outputs_and_control_flow_in_a_frozen_module, None),
        (frozen_module_writes_to_its_list, {"sums"}),
        (frozen_module_counts, {"stem"}),
        (frozen_module_caches, {"caches"}),
        (network_counts, {"stem"}),
        (images_are_changed_in_place, {"stem"}),
        (has_gradients_of_its_own_before_the_cut, {"div"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_is_cut_and_trains_as_whole(flow: Callable[[Net, Tensor], Tensor], kept: set[str] | None) -> None:
    tuned = tuned_network(Net(flow), IMAGES, "block", head=Head("fc"))
    partition = verify_partition(partition_network(tuned, IMAGES.clone()), IMAGES)
    assert partition.reason is None
    if kept is not None:
        assert {part.name for part in partition.kept} == kept
    assert_same_training(partition, IMAGES)


def branches_on_values(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(x * 2 if x.mean() > 0 else x))


def branches_on_logits(net: Net, x: Tensor) -> Tensor:
    logits = net.end(net.block(net.stem(x)))
    return logits / 2 if logits.max() > 1 else logits


def counts_images(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.frozen(net.stem(x)) if len(x) > 2 else net.stem(x)))


def drops_layers_by_python(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(net.frozen(x) if not net.training or random.random() > 0.5 else x))  # noqa: S311


def differs_in_training_from_the_start(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.stem(x * 1.1 if net.training else x)))


def compares_images(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(net.frozen(x - x.mean(0, keepdim=True))))


def reads_a_list_that_a_frozen_module_wrote_to(net: Net, x: Tensor) -> Tensor:
    both = [net.stem(x), net.frozen(net.stem(x))]
    return net.end(net.block(net.sums(both)) + both[1])


def trains_without_gradients(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    with torch.no_grad():
        y = net.block(x)
    return net.end(x + y)


def assigns_a_buffer(net: Net, x: Tensor) -> Tensor:
    net.seen = net.seen + x.mean()
    return net.end(net.block(net.stem(x)))


def has_gradients_of_its_own_behind_the_cut(net: Net, x: Tensor) -> Tensor:
    return net.end(Halve.apply(net.block(net.stem(x))))


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (branches_on_values, "its forward method branches on the values of a tensor"),
        (branches_on_logits, "its forward method branches on the values of a tensor"),
        (has_gradients_of_its_own_behind_the_cut, "the gradient of block.0.weight of the parts and of the whole"),
        (counts_images, "its forward method depends on the number of images"),
        (drops_layers_by_python, "its forward method draws random numbers, which a recording would repeat"),
        (differs_in_training_from_the_start, "no frozen part runs before the part that trains"),
        (compares_images, "the output of 'frozen' depends on the other images of the batch"),
        (reads_a_list_that_a_frozen_module_wrote_to, "its forward method uses a tensor that no recorded step computes"),
        (trains_without_gradients, "the gradient of block.0.weight exists in the parts alone"),
        (assigns_a_buffer, "the buffer seen"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_that_cannot_be_cut_trains_whole(flow: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    tuned = tuned_network(Net(flow), IMAGES, "block", head=Head("fc"))
    state = {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    partition = verify_partition(partition_network(tuned, IMAGES), IMAGES)
    assert partition.reason is not None
    assert reason in partition.reason
    assert "\n" not in partition.reason
    assert [part.name for part in partition.kept] == ["images"]
    assert partition.suffix_module is None
    assert all(torch.equal(tensor, state[name]) for name, tensor in tuned.network.state_dict().items())
    assert_same_training(partition, IMAGES)


def slows_down_after_some_steps(net: Net, x: Tensor) -> Tensor:
    net.steps += net.training
    x = net.block(net.stem(x))
    return net.end(x * 0.5 if net.steps > 3 else x)


def test_a_network_that_counts_in_python_trains_whole_and_its_count_stays() -> None:
    network = Net(slows_down_after_some_steps)
    network.steps = 0
    tuned = tuned_network(network, IMAGES, "block", head=Head("fc"))
    partition = verify_partition(partition_network(tuned, IMAGES), IMAGES)
    assert partition.reason is not None
    assert partition.reason == "its forward method changes its own attribute 'steps'"
    assert network.steps == 0


def test_a_network_that_trains_whole_has_nothing_to_cut() -> None:
    tuned = tuned_network(Net(straight), IMAGES, "*", head=Head("fc"))
    assert partition_network(tuned, IMAGES).reason == "all of it trains"


def test_part_whose_code_cannot_be_recorded_goes_whole_into_the_suffix() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(8, 8)
            self.block = nn.Linear(8, 8)
            self.fc = nn.Linear(8, CLASSES)

        def forward(self, values: Tensor) -> Tensor:
            values = self.frozen(values)
            return self.fc(self.block(values if values.mean() > 0 else -values))

    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), Odd())
    tuned = tuned_network(network, IMAGES, "3.block", head=Head("3.fc"))
    partition = verify_partition(partition_network(tuned, IMAGES), IMAGES)
    assert (partition.reason, partition.hidden_heads) == (None, ("3.fc",))
    assert [part.name for part in partition.kept] == ["2"]
    assert_same_training(partition, IMAGES)


def test_both_heads_of_a_network_whose_modes_give_different_things() -> None:
    network = timm.create_model(
        "deit_base_distilled_patch16_224",
        img_size=32, embed_dim=24, depth=3, num_heads=2, drop_path_rate=0.5, proj_drop_rate=0.2,
    )  # fmt: skip
    images = torch.rand(4, 3, 32, 32)
    head = DualHead(cls=Head("head", hidden=8), dist=Head("head_dist", hidden=8))
    partition = partition_network(tuned_network(network, images, "blocks.2", "norm", head=head), images)
    assert [(part.name, part.shape) for part in partition.kept] == [("blocks.1", (6, 24))]
    assert len(partition.suffix(partition.prefix(images))) == 2
    assert_same_training(partition, images)


def test_description_of_a_network_that_reads_values_comes_from_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_values.py").write_text(
        """
from torch import nn

class Clamped(nn.Conv2d):
    def forward(self, images):
        return super().forward(images) / max(1.0, images.amax().item())

def make():
    return nn.Sequential(Clamped(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 10))
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    backbone = Backbone(
        name="reads_values",
        weights=RandomWeights(),
        architecture=FactoryArchitecture("reads_values:make"),
        preprocessing=Preprocessing(input_size=(32, 32)),
        unfreeze=("3",),
        head=Head("4"),
        features=(FeatureLayer("3", 4, pool="flatten"),),
        license=None,
        paper=None,
        pretrained_on=None,
        imagenet_top1=None,
    )
    cut = describe_partition(backbone, "default", 10)
    assert (cut["reason"], cut["kept"]) == (None, [{"name": "2", "shape": [8], "dtype": "float32", "bytes": 32}])
    assert cut["suffix_flops"] == 2 * (8 * 4 + 4 * 10)


# How callers use a partition


@pytest.fixture
def partition() -> Partition:
    tuned = tuned_network(Net(skip_across_the_cut), IMAGES, "block", head=Head("fc"))
    return partition_network(tuned, IMAGES)


def test_layers_of_the_suffix_are_reached_with_the_values_of_the_whole_network() -> None:
    network = timm.create_model("test_resnet")
    images = torch.rand(2, 3, 64, 64)
    tuned = tuned_network(network, images, "layer4.0.conv2", head=Head("fc"))
    partition = partition_network(tuned, images)
    reached = ["layer4.0.conv2", "layer4.0", "layer4", "global_pool", "global_pool.pool", "fc"]
    assert [path for path in [*reached, "conv1", "layer3", "layer4.0.conv1"] if partition.reaches(path)] == reached
    tuned.eval()
    with torch.no_grad():
        kept = partition.prefix(images)
        with capture(network, reached) as expected:
            tuned.logits(images)
        with capture(network, reached) as found:
            partition.suffix(kept)
    assert list(found) == list(expected)
    assert all(torch.equal(found[path], expected[path]) for path in reached)


def test_the_suffix_trains_the_parameters_of_the_network_itself(partition: Partition) -> None:
    assert partition.suffix_module is not None
    trained = {id(parameter) for parameter in partition.tuned.trained_parameters().values()}
    assert {id(value) for value in partition.suffix_module.parameters() if value.requires_grad} == trained
    partition.tuned.train()
    partition.suffix_module.eval()
    assert partition.tuned.network.block[1].training, "modes are the tuned network's business"


def test_kept_tensors_are_not_written_to() -> None:
    tuned = tuned_network(Net(suffix_writes_to_kept_tensors), IMAGES, "block", head=Head("fc"))
    partition = partition_network(tuned, IMAGES)
    (kept,) = partition.prefix(IMAGES)
    before = kept.clone()
    partition.suffix((kept,))
    assert torch.equal(kept, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kept_tensors_may_be_stored_in_fewer_bits(partition: Partition, dtype: torch.dtype) -> None:
    partition.tuned.eval()
    kept = partition.prefix(IMAGES)
    (logits,) = partition.suffix(tuple(values.to(dtype) for values in kept))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, partition.tuned.logits(IMAGES)[0], rtol=0.02, atol=0.02)


def test_kept_tensors_get_their_memory_layout_back() -> None:
    network = timm.create_model("test_efficientnet").to(memory_format=torch.channels_last)
    images = torch.rand(4, 3, 64, 64)
    partition = partition_network(tuned_network(network, images, "blocks.3", head=Head("classifier")), images)
    assert [part.order for part in partition.kept] == [(0, 2, 3, 1)]
    assert_same_training(partition, images)


def test_partition_under_autocast_keeps_the_types_of_autocast() -> None:
    tuned = tuned_network(Net(straight), IMAGES, "block", head=Head("fc"))
    with torch.autocast("cpu", torch.bfloat16):
        partition = verify_partition(partition_network(tuned, IMAGES), IMAGES)
    assert partition.reason is None
    assert [part.dtype for part in partition.kept] == ["bfloat16"]
    assert partition.bytes_per_image == 2 * 8 * 8 * 8


def test_cut_is_the_same_on_the_meta_device(partition: Partition) -> None:
    images = IMAGES.to("meta")
    tuned = tuned_network(Net(skip_across_the_cut).to("meta"), images, "block", head=Head("fc"))
    assert partition_network(tuned, images).kept == partition.kept


def test_cutting_and_trying_leave_no_trace() -> None:
    network = Net(network_counts)
    network.again = nn.Sequential(network.frozen)  # a module with two names
    tuned = tuned_network(network, IMAGES, "block", head=Head("fc"))
    tuned.train()
    gradient = torch.ones_like(tuned.network.fc.bias)
    tuned.network.fc.bias.grad = gradient
    tensors = {name: (tensor, tensor.clone()) for name, tensor in tuned.network.state_dict(keep_vars=True).items()}
    flags = {name: module.training for name, module in tuned.network.named_modules()}
    attributes = dict(vars(tuned.network))
    drawn, state = torch.get_rng_state(), random.getstate()
    verify_partition(partition_network(tuned, IMAGES), IMAGES)
    now = tuned.network.state_dict(keep_vars=True)
    assert all(now[name] is tensor and torch.equal(tensor, value) for name, (tensor, value) in tensors.items())
    assert {name: module.training for name, module in tuned.network.named_modules()} == flags
    assert tuned.network.fc.bias.grad is gradient
    assert vars(tuned.network) == attributes
    assert torch.equal(torch.get_rng_state(), drawn)
    assert random.getstate() == state


def test_suffix_that_computes_something_else_is_not_used(partition: Partition) -> None:
    assert verify_partition(partition, IMAGES) is partition
    with torch.no_grad():
        partition.tuned.network.frozen.weight += 1e-6  # the prefix of another network
        stale = tuple(values.clone() for values in partition.prefix(IMAGES))
        partition.tuned.network.frozen.weight -= 1e-3
    wrong = Partition(partition.tuned, partition.kept, None, _Fixed(stale), partition.suffix_module)
    assert verify_partition(wrong, IMAGES).reason is not None


class _Fixed(nn.Module):
    """Puts out fixed values."""

    def __init__(self, values: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.values = values

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(values[: len(images)] for values in self.values)
