"""The replay: a network's own code, its frozen part answered from what is kept, trains as the whole network does."""

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
from zoo_harness.frozen.partition.partition import Split, split_network
from zoo_harness.frozen.partition.side_effects import CannotSplitError
from zoo_harness.frozen.partition.summary import count_flops, describe_split
from zoo_harness.frozen.partition.verify import verified
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


def tuned_network(network: nn.Module, images: Tensor, unfreeze: str, head: str | Head | DualHead) -> TunedNetwork:
    parts = Head(head) if isinstance(head, str) else head
    tuning = Tuning("default", (unfreeze,), parts, Training(), (FeatureLayer("unused", 1),))
    return prepare(network, tuning, CLASSES, images)


def trained(tuned: TunedNetwork, logits: Callable[[], tuple[Tensor, ...]], steps: int = 2) -> dict[str, Tensor]:
    """Everything that some steps of training give: logits of each, last gradients, and all tensors of the network."""
    tuned.train()
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(tuned.trained_parameters().values(), lr=1e-2)
    outcome: dict[str, Tensor] = {}
    for step in range(steps):
        optimizer.zero_grad()
        (outcome[f"logits of step {step}"],) = logits()
        nn.functional.cross_entropy(outcome[f"logits of step {step}"], torch.arange(3) % CLASSES).backward()
        optimizer.step()
    gradients = {name: value.grad for name, value in tuned.trained_parameters().items()}
    outcome |= {f"gradient of {name}": value for name, value in gradients.items() if value is not None}
    outcome |= {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    tuned.eval()
    with torch.inference_mode():
        (outcome["logits in inference"],) = logits()
    return outcome


def assert_same_training(split: Split, images: Tensor) -> None:
    network = split.tuned.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    split.tuned.eval()
    kept = tuple(values.clone() for values in split.prefix(images.clone()))
    copies = [values.clone() for values in kept]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    parts = trained(split.tuned, lambda: split.tail(kept))
    network.load_state_dict(before)
    whole = trained(split.tuned, lambda: split.tuned.logits(images.clone()))
    assert whole.keys() == parts.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])] == []
    assert all(map(torch.equal, kept, copies)), "what is kept is written to"


# A network of our own, whose forward method is whatever a test makes it


class Net(nn.Module):
    """A frozen stem and more that is frozen; ``block`` and ``fc`` train; ``flow`` is what forward does."""

    def __init__(self, flow: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.flow = flow
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout())
        self.between = nn.Dropout2d(0.3, inplace=True)
        self.frozen = nn.Conv2d(8, 8, 3, padding=1)
        self.named = Named()
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.2)
        )
        self.fc = nn.Linear(8, CLASSES)
        self.register_buffer("seen", torch.zeros(()))
        self.again = 2
        self.wild = False

    def forward(self, images: Tensor) -> Tensor:
        return self.flow(self, images)

    def end(self, values: Tensor) -> Tensor:
        """Logits, and a branch on them, which cannot be recorded."""
        logits = self.fc(values.mean((2, 3)))
        return logits * 1.5 if logits.max() > 0 else logits


class Named(nn.Module):
    """Puts out tensors and numbers by name, after a look at values of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, values: Tensor) -> dict[str, object]:
        scaled = values * self.weight if self.weight.mean().item() > 0 else values
        return {"both": (scaled, values * 2), "height": values.shape[2], "rows": values.shape[0] * 4}


def straight(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.between(net.stem(x))))


def asks_for_shapes_and_mode(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    batch, channels, height, width = x.shape
    torch._assert(channels == 8, f"given {x.shape}")
    if height == width and x.dim() == 4:
        x = x.permute(0, 2, 3, 1).reshape(batch * height, int(width), channels)
        x = x.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
    if net.training:
        x = x + torch.randn_like(x)
    return net.end(net.block(x)) / len(x)


def counts_in_python(net: Net, x: Tensor) -> Tensor:
    x, times = net.stem(x), 0
    while times < net.again:
        x = net.frozen(x)
        times += 1
    return net.end(net.block(x))


def skips_across_the_cut(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    y = net.block(x)
    y += x
    return net.end(y)


def works_in_place(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    y = nn.functional.relu(x, inplace=True)
    x[:, 0] = 0.5
    return net.end(net.block(y) + x)


def tail_works_in_place_on_what_is_kept(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    y = net.block(x.clone())
    x += y
    return net.end(x.relu_())


def names_its_outputs(net: Net, x: Tensor) -> Tensor:
    found = net.named(net.stem(x))
    one, other = found["both"]
    return net.end(net.block(one) + other.reshape(found["rows"], 2, found["height"], 8).reshape(one.shape))


def calls_a_frozen_module_twice(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.frozen(x)
    return net.end(net.block(net.frozen(y)) + y)


def calls_a_frozen_module_after_the_block(net: Net, x: Tensor) -> Tensor:
    x = net.frozen(net.stem(x))
    return net.end(net.frozen(net.block(x)) + net.frozen(x))


def drops_out_as_a_function(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(nn.functional.dropout(net.stem(x), 0.5, net.training)))


def drops_paths(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.block(x)
    if net.training:
        y = y * torch.empty(x.shape[0], 1, 1, 1).bernoulli_(0.5).div_(0.5)
    return net.end(x + y)


def drops_layers(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(net.frozen(x) if not net.training or torch.rand(1) > 0.5 else x))


def drops_branches(net: Net, x: Tensor) -> Tensor:
    one = net.stem(x)
    other = net.frozen(one)
    if net.training:
        return net.end(net.block(other if torch.rand(()).item() > 0.5 else one))
    return net.end(net.block(one))


def chooses_by_what_trains(net: Net, x: Tensor) -> Tensor:
    one = net.stem(x)
    other = net.frozen(one)
    y = net.block(one)
    chosen = other if float(y.detach().mean()) > -1e9 else one
    return net.end(y + chosen * chosen.mean())


def masks(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    mask = torch.ones(x.shape[0], 1, 8, 8)
    mask[:, :, 0] = 0.5
    mask.mul_(2)
    return net.end(net.block(net.frozen(x * mask)) * mask)


def counts_in_a_buffer(net: Net, x: Tensor) -> Tensor:
    net.seen += 1
    return net.end(net.block(net.stem(x)) * net.seen)


def trains_without_gradients(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    with torch.no_grad():
        y = net.block(x)
    return net.end(x + y)


class Halve(torch.autograd.Function):
    """An operation of its own: torch's code would crash on what a recording passes around."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:  # noqa: ARG004
        return values / 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        return gradient / 2


def has_operations_of_its_own(net: Net, x: Tensor) -> Tensor:
    return net.end(Halve.apply(net.block(Halve.apply(net.stem(x)))))


@pytest.mark.parametrize(
    ("flow", "kept"),
    [
        (straight, ["stem"]),
        (asks_for_shapes_and_mode, ["permute"]),
        (counts_in_python, ["frozen"]),
        (skips_across_the_cut, ["frozen"]),
        (works_in_place, ["__setitem__"]),
        (tail_works_in_place_on_what_is_kept, ["frozen"]),
        (names_its_outputs, ["named", "reshape"]),
        (calls_a_frozen_module_twice, ["frozen", "frozen (2)"]),
        (calls_a_frozen_module_after_the_block, ["frozen", "frozen (2)"]),
        (drops_out_as_a_function, ["stem"]),
        (drops_paths, ["stem"]),
        (drops_layers, ["stem"]),
        (drops_branches, ["stem", "frozen"]),
        (chooses_by_what_trains, ["stem", "frozen"]),
        (masks, ["frozen"]),
        (counts_in_a_buffer, ["stem"]),
        (trains_without_gradients, ["stem"]),
        (has_operations_of_its_own, ["div"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_that_cannot_be_recorded_is_replayed(flow: Callable[[Net, Tensor], Tensor], kept: list[str]) -> None:
    tuned = tuned_network(Net(flow), IMAGES, "block", "fc")
    split = verified(split_network(tuned, IMAGES.clone()), IMAGES)
    assert (split.reason, split.replayed) == (None, True)
    assert [part.name for part in split.kept] == kept
    assert_same_training(split, IMAGES[:3])


def branches_on_what_is_frozen(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(x * 2 if x.mean() > 0 else x))


def takes_a_number_from_what_is_frozen(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(x / x.max().item()))


def counts_images(net: Net, x: Tensor) -> Tensor:
    return net.end(net.block(net.frozen(net.stem(x)) if len(x) > 2 else net.stem(x)))


def works_by_halves(net: Net, x: Tensor) -> Tensor:
    half = len(x) // 2 + len(x) % 2
    return net.end(net.block(net.frozen(net.stem(x).roll(half - 1 - len(x) % 2, 0))))


def compares_images(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(net.frozen(x - x.mean(0, keepdim=True))))


def draws_in_python(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(net.frozen(x) if random.random() > 0.5 else x))  # noqa: S311


def remembers(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    before, net.last = getattr(net, "last", x), x
    return net.end(net.block(x + before.mean()))


def puts_a_tensor_in_place_of_a_buffer(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    net.seen = net.seen + x.mean()
    return net.end(net.block(x))


def reads_into_numpy(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.end(net.block(x + torch.as_tensor(x.numpy())))


def tail_writes_to_shared_memory(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    flat = x.view(x.shape[0], 8, -1)
    x.mul_(net.fc.weight[0, 0])
    return net.end(net.block(x)) + net.fc(flat.mean(2))


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (branches_on_what_is_frozen, "its forward method decides by the values of a tensor of the frozen part"),
        (takes_a_number_from_what_is_frozen, "its forward method decides by the values of a tensor of the frozen part"),
        (counts_images, "what it does depends on the number of images"),
        (works_by_halves, "which it did not while it was looked at"),
        (compares_images, "what 'frozen' gives for an image depends on the others in the batch"),
        (draws_in_python, "it draws random numbers outside of torch"),
        (remembers, "its forward method keeps tensors from one call to the next"),
        (puts_a_tensor_in_place_of_a_buffer, "puts another tensor in place of the buffer seen"),
        (reads_into_numpy, "its forward method decides by the values of a tensor of the frozen part"),
        (tail_writes_to_shared_memory, "overwrites memory that tensors of the frozen part share"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_that_cannot_be_replayed_trains_whole(flow: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    tuned = tuned_network(Net(flow), IMAGES, "block", "fc")
    state = {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    split = verified(split_network(tuned, IMAGES.clone()), IMAGES)
    assert split.reason is not None
    assert reason in split.reason
    assert "\n" not in split.reason
    assert [part.name for part in split.kept] == ["images"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in tuned.network.state_dict().items())


def test_a_path_that_was_not_seen_is_an_error_and_no_wrong_answer() -> None:
    def goes_wild(net: Net, x: Tensor) -> Tensor:
        x = net.frozen(net.stem(x))
        y = net.block(x)
        return net.end(net.frozen(y) + (net.stem(x[:, :3]) if net.wild else y))

    tuned = tuned_network(Net(goes_wild), IMAGES, "block", "fc")
    split = verified(split_network(tuned, IMAGES), IMAGES)
    assert split.replayed
    tuned.eval()
    kept = split.prefix(IMAGES)
    tuned.network.wild = True
    assert torch.equal(split.tail(kept)[0], tuned.logits(IMAGES)[0]), "all that it reads is kept"

    def reads_what_is_not_kept(net: Net, x: Tensor) -> Tensor:
        y = net.frozen(net.stem(x))
        return net.end(net.block(y) + (x.mean() if net.wild else 0))

    tuned = tuned_network(Net(reads_what_is_not_kept), IMAGES, "block", "fc")
    split = verified(split_network(tuned, IMAGES), IMAGES)
    kept = split.prefix(IMAGES)
    tuned.network.wild = True
    with pytest.raises(CannotSplitError, match="its part that trains reads the images, which it did not"):
        split.tail(kept)
    assert "_compiled_call_impl" not in vars(tuned.network)


# timm's families, where tracing gives something to compare with


@pytest.mark.parametrize(
    ("name", "unfreeze", "head"),
    [
        ("test_resnet", "layer4.0.conv2", "fc"),
        ("test_vit", "blocks.5", "head"),
        ("test_efficientnet", "blocks.3", "classifier"),
        ("test_nfnet", "stages.3", "head.fc"),
        ("test_convnext", "stages.3.blocks", "head.fc"),
        ("test_mambaout", "stages.2.blocks.2.conv", "head.fc"),
    ],
)
def test_networks_of_timm_are_cut_where_the_trace_cuts_them(
    name: str, unfreeze: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = timm.create_model(name, drop_path_rate=0.5, drop_rate=0.2)
    images = torch.rand(3, *network.default_cfg["input_size"]) if name == "test_vit" else torch.rand(3, 3, 64, 64)
    tuned = tuned_network(network, images, unfreeze, head)
    traced = split_network(tuned, images)
    monkeypatch.setattr("zoo_harness.frozen.partition.partition._recorded", refuse)
    replayed = verified(split_network(tuned, images), images)
    assert (replayed.reason, replayed.replayed, traced.replayed) == (None, True, False)
    assert replayed.bytes_per_image <= traced.bytes_per_image
    assert count_flops(replayed, images)[1] == count_flops(traced, images)[1]
    assert_same_training(replayed, images)


@pytest.mark.parametrize(
    ("name", "unfreeze", "head"),
    [
        ("deit_base_distilled_patch16_224", "blocks.2", DualHead(cls=Head("head", hidden=8), dist=Head("head_dist"))),
        ("cait_xxs24_224", "blocks_token_only", Head("head")),
    ],
)
def test_two_heads_and_two_streams_pass_the_trial(
    name: str, unfreeze: str, head: Head | DualHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = timm.create_model(name, img_size=32, embed_dim=24, depth=3, num_heads=2, drop_path_rate=0.5)
    images = torch.rand(4, 3, 32, 32)
    tuned = tuned_network(network, images, unfreeze, head)
    monkeypatch.setattr("zoo_harness.frozen.partition.partition._recorded", refuse)
    split = verified(split_network(tuned, images), images)
    assert (split.reason, split.replayed, len(split.kept)) == (None, True, 1)


def refuse(*_arguments: object) -> None:
    """Stand for a trace that fails, where it would not."""
    raise CannotSplitError("not tried")


# What a replayed split is to those who use it


@pytest.fixture
def split() -> Split:
    return split_network(tuned_network(Net(skips_across_the_cut), IMAGES, "block", "fc"), IMAGES)


def test_layers_of_the_tail_are_reached_with_what_the_whole_network_gives(split: Split) -> None:
    reached = ["block.0", "block.1", "block", "fc"]
    assert [path for path in [*reached, "stem", "stem.0", "frozen", "between"] if split.reaches(path)] == reached
    split.tuned.eval()
    kept = split.prefix(IMAGES)
    with capture(split.tuned.network, reached) as expected:
        split.tuned.logits(IMAGES)
    with capture(split.tuned.network, reached) as found:
        split.tail(kept)
    assert all(torch.equal(found[path], expected[path]) for path in reached)


def test_the_prefix_stops_before_the_tail_and_the_tail_skips_it(split: Split) -> None:
    prefix, tail = count_flops(split, IMAGES[:1])
    assert (prefix, tail) == (2 * 9 * 64 * (3 * 8 + 8 * 8), 2 * (9 * 64 * 8 * 8 + 8 * CLASSES))
    assert split.tail_module is not None
    trained = {id(parameter) for parameter in split.tuned.trained_parameters().values()}
    assert {id(value) for value in split.tail_module.parameters() if value.requires_grad} == trained


def test_replay_under_autocast_keeps_what_autocast_gives() -> None:
    tuned = tuned_network(Net(straight), IMAGES, "block", "fc")
    with torch.autocast("cpu", torch.bfloat16):
        split = verified(split_network(tuned, IMAGES), IMAGES)
    assert (split.reason, split.replayed) == (None, True)
    assert [part.dtype for part in split.kept] == [torch.bfloat16]


def test_looking_leaves_no_trace() -> None:
    tuned = tuned_network(Net(counts_in_a_buffer), IMAGES, "block", "fc")
    tuned.train()
    flags = {name: module.training for name, module in tuned.network.named_modules()}
    attributes = [set(vars(module)) for module in tuned.network.modules()]
    tensors = {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    drawn, state = torch.get_rng_state(), random.getstate()
    assert verified(split_network(tuned, IMAGES), IMAGES).replayed
    assert {name: module.training for name, module in tuned.network.named_modules()} == flags
    assert [set(vars(module)) for module in tuned.network.modules()] == attributes
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in tuned.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert random.getstate() == state


CODE = """
from torch import nn

class Halved(nn.Sequential):
    def forward(self, images):
        logits = super().forward(images)
        return logits / 2 if logits.max() > 1 else logits

def make():
    return Halved(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 10))
"""


def test_description_says_that_a_network_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "halves_logits.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    backbone = Backbone(
        name="halves_logits",
        weights=RandomWeights(),
        architecture=FactoryArchitecture("halves_logits:make"),
        preprocessing=Preprocessing(input_size=(32, 32)),
        unfreeze=("3",),
        head=Head("4"),
        features=(FeatureLayer("3", 4, pool="flatten"),),
        license=None,
        paper=None,
        pretrained_on=None,
        imagenet_top1=None,
    )
    cut = describe_split(backbone, "default", 10)
    assert (cut["reason"], cut["mechanism"]) == (None, "replayed")
    assert [part["name"] for part in cut["kept"]] == ["2"]
    assert cut["tail_flops"] == 2 * (8 * 4 + 4 * 10)
