"""Surgery: the replaced head, the trained part, and a frozen part that does not change by a bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from zoo import Backbone, DeclarationError, DualHead, Head, TimmArchitecture, UsageError
from zoo.backbone import FeatureLayer, Training, Tuning
from zoo_harness.evaluation.split_evaluation import summed_loss
from zoo_harness.models.build import build_network
from zoo_harness.models.modules import capture, match_modules
from zoo_harness.models.surgery import prepare, replace_head, warn_if_output_differs_from_head
from zoo_harness.models.tuned_network import TunedNetwork, count_parameters

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def resnet(tiny_resnet: Backbone) -> nn.Module:
    network = build_network(tiny_resnet.name, tiny_resnet.network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts the last one of a block at zero: no gradient gets past it
            nn.init.uniform_(module.weight)
    return network


def tuning(*unfreeze: str, head: Head | DualHead) -> Tuning:
    return Tuning("default", unfreeze, head, Training(), (FeatureLayer("unused", 1),))


def train(tuned: TunedNetwork, images: Tensor, steps: int = 3) -> None:
    tuned.train()
    optimizer = torch.optim.Adam(tuned.trained_parameters().values(), lr=1e-2)
    for _step in range(steps):
        optimizer.zero_grad()
        summed_loss(tuned.logits(images), torch.arange(len(images)) % 2).backward()
        optimizer.step()


def moved(tuned: TunedNetwork, work: Callable[[], object]) -> set[str]:
    """Names of the tensors, buffers among them, that differ after the work."""
    before = {name: tensor.clone() for name, tensor in tuned.network.state_dict().items()}
    work()
    return {name for name, tensor in tuned.network.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_star_trains_what_the_network_itself_holds_too() -> None:
    network = build_network("tiny_vit", TimmArchitecture("test_vit.r160_in1k"))
    tuned = prepare(network, tuning("*", head=Head("head")), 2, torch.rand(2, 3, 160, 160))
    assert set(tuned.trained_parameters()) == {name for name, _value in network.named_parameters()}
    assert {"cls_token", "pos_embed"} <= set(tuned.trained_parameters())
    assert all(tuned.modes.values())


# Which modules a pattern names


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["layer4"], ("layer4",)),
        (["layer4.0.conv?"], ("layer4.0.conv1", "layer4.0.conv2")),
        (["layer4.0.bn[2]", "bn1"], ("bn1", "layer4.0.bn2")),
        (["layer[34]"], ("layer3", "layer4")),
        (["layer4", "layer4", "layer[!123]"], ("layer4",)),
    ],
)
def test_patterns_name_modules_in_the_networks_order(
    resnet: nn.Module, patterns: list[str], expected: tuple[str, ...]
) -> None:
    assert match_modules(resnet, patterns) == expected


def test_globs_reach_into_what_they_name(resnet: nn.Module) -> None:
    below = {name for name, _module in resnet.named_modules() if name.startswith("layer4.")}
    assert set(match_modules(resnet, ["layer4.*"])) == below


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("layer5", "; did you mean 'layer4' or 'layer3' or 'layer2'?"),
        ("layer4.0.convl", "; did you mean 'layer4.0.conv2' or 'layer4.0.conv1' or "),
        ("transformer.h.*", "; it has conv1, conv1.0, "),
    ],
)
def test_a_pattern_without_a_match_is_an_error_with_near_misses(resnet: nn.Module, pattern: str, hint: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        match_modules(resnet, ["layer4", pattern])
    assert (caught.value.code, caught.value.facts["path"]) == ("module-unknown", pattern)
    assert hint in str(caught.value)


def test_module_with_two_names_is_found_by_either() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    network.alias = network[0]
    assert match_modules(network, ["alias"]) == ("alias",)


# The head


def test_linear_head(resnet: nn.Module) -> None:
    assert replace_head(resnet, Head("fc"), 10) == ("fc",)
    assert (resnet.fc.in_features, resnet.fc.out_features) == (96, 10)
    assert resnet.num_classes == 10
    assert resnet(IMAGES).shape == (4, 10)


def test_mlp_head(resnet: nn.Module) -> None:
    replace_head(resnet, Head("fc", hidden=256), 10)
    assert [type(layer) for layer in resnet.fc] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(value.shape) for value in resnet.fc.parameters()] == [(256, 96), (256,), (10, 256), (10,)]
    assert resnet(IMAGES).shape == (4, 10)


def test_nested_head_and_dual_head() -> None:
    nfnet = build_network("nfnet", TimmArchitecture("test_nfnet.r160_in1k"))
    assert replace_head(nfnet, Head("head.fc"), 3) == ("head.fc",)
    assert nfnet(IMAGES).shape == (4, 3)
    two = TwoHeads()
    head = DualHead(cls=Head("left"), dist=Head("right", hidden=4))
    tuned = prepare(two, tuning("body", head=head), 3, IMAGES)
    assert [tuple(logits.shape) for logits in tuned.logits(IMAGES)] == [(4, 3), (4, 3)]
    assert not torch.equal(*tuned.logits(IMAGES))
    train(tuned, IMAGES)
    assert all(value.grad is not None for value in tuned.trained_parameters().values())


def test_head_that_bypasses_a_module_sees_what_that_saw() -> None:
    network = bypassing()
    head = Head("fc", hidden=7, bypass=("neck",), in_features=6)
    assert replace_head(network, head, 3) == ("fc",)
    assert isinstance(network.neck, nn.Identity)
    given = torch.rand(2, 4)
    torch.testing.assert_close(network(given), network.fc(network.body(given)))
    assert [tuple(value.shape) for value in network.fc.parameters()] == [(7, 6), (7,), (3, 7), (3,)]


def bypassing() -> nn.Module:
    return nn.Sequential(OrderedDict(body=nn.Linear(4, 6), neck=nn.Linear(6, 9), fc=nn.Linear(9, 5)))


@pytest.mark.parametrize(
    ("code", "unfreeze", "head"),
    [
        ("head-bypass", "neck", Head("fc", bypass=("neck",), in_features=6)),
        ("head-width", "body", Head("fc", in_features=99)),
        ("module-unknown", "body", Head("fc", bypass=("nick",), in_features=6)),
        ("module-unknown", "body", Head("fx")),
        ("head-type", "body", Head("neck.0")),
    ],
)
def test_a_head_that_does_not_fit_the_network(code: str, unfreeze: str, head: Head) -> None:
    network = bypassing()
    if code == "head-type":
        network.neck = nn.Sequential(nn.Tanh())
    with pytest.raises(DeclarationError) as caught:
        prepare(network, tuning(unfreeze, head=head), 3, torch.rand(2, 4))
    assert caught.value.code == code
    assert hooks_of(network) == 0


def test_network_without_a_classifier_gets_one_of_the_declared_width() -> None:
    bare = build_network("vit", TimmArchitecture("test_vit.r160_in1k"))
    bare.reset_classifier(0)
    with pytest.raises(DeclarationError, match="declare in_features"):
        replace_head(bare, Head("head"), 3)
    replace_head(bare, Head("head", in_features=64), 3)
    assert bare(torch.rand(1, 3, 160, 160)).shape == (1, 3)


class TwoHeads(nn.Module):
    """Gives the mean of its heads, as distilled DeiT does in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
        self.left = nn.Linear(8, 5)
        self.right = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return (self.left(features) + self.right(features)) / 2


def test_one_class_is_no_classifier(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match="expected 2 or more"):
        prepare(resnet, tuning("layer4", head=Head("fc")), 1, IMAGES)


# Frozen means frozen


@pytest.mark.parametrize("hidden", [None, 16])
def test_nothing_outside_the_trained_part_moves(resnet: nn.Module, hidden: int | None) -> None:
    tuned = prepare(resnet, tuning("layer4.0", head=Head("fc", hidden=hidden)), 10, IMAGES)
    changed = moved(tuned, lambda: train(tuned, IMAGES))
    trained = {name for name in resnet.state_dict() if name.startswith(("layer4.0.", "fc."))}
    assert changed == trained, "every tensor of the block and the head moves, BatchNorm's buffers too, and no other"
    assert any(name.endswith("num_batches_tracked") for name in changed)
    assert set(tuned.trained_parameters()) == {name for name, _value in resnet.named_parameters()} & trained


def test_batch_norm_may_stay_frozen_inside_a_block_that_trains(resnet: nn.Module) -> None:
    tuned = prepare(resnet, tuning("layer4.0.conv?", head=Head("fc")), 10, IMAGES)
    changed = moved(tuned, lambda: train(tuned, IMAGES))
    assert changed == {"layer4.0.conv1.weight", "layer4.0.conv2.weight", "fc.weight", "fc.bias"}


def test_freezing_holds_after_evaluation_and_any_call_to_train(resnet: nn.Module) -> None:
    tuned = prepare(resnet, tuning("layer4.0", head=Head("fc")), 10, IMAGES)
    tuned.network.train()
    tuned.eval()
    assert not any(module.training for module in resnet.modules())
    assert moved(tuned, lambda: resnet(IMAGES)) == set()
    assert {name.split(".")[0] for name in moved(tuned, lambda: train(tuned, IMAGES))} == {"layer4", "fc"}


def test_frozen_part_computes_no_gradient(resnet: nn.Module) -> None:
    tuned = prepare(resnet, tuning("layer4.0", head=Head("fc")), 10, IMAGES)
    tuned.train()
    with capture(resnet, ["layer3", "layer4"]) as outputs:
        tuned.logits(IMAGES)
    assert not outputs["layer3"].requires_grad
    assert outputs["layer4"].requires_grad


def test_vit_block_and_norm() -> None:
    vit = build_network("vit", TimmArchitecture("test_vit.r160_in1k"))
    images = torch.rand(2, 3, 160, 160)
    tuned = prepare(vit, tuning("blocks.5", "fc_norm", head=Head("head")), 10, images)
    changed = moved(tuned, lambda: train(tuned, images))
    assert changed == {name for name in vit.state_dict() if name.startswith(("blocks.5.", "fc_norm.", "head."))}


# Dropout follows its place


class Dropouts(nn.Module):
    """Dropout in every place there is, one in two places, and a BatchNorm after the block that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dropout()
        self.frozen = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout())
        self.between = nn.Dropout()
        self.everywhere = nn.Dropout()
        self.block = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout())
        self.late = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout())
        self.last = nn.Dropout()
        self.unused = nn.Dropout()
        self.fc = nn.Linear(64, 7)

    def forward(self, values: Tensor) -> Tensor:
        values = self.between(self.frozen(self.everywhere(self.first(values))))
        return self.fc(self.everywhere(self.last(self.late(self.block(values)))))


def acting_dropouts(network: nn.Module, values: Tensor) -> list[str]:
    """Paths of the dropout modules that change what they are given, in the order they run."""
    paths = {module: name for name, module in network.named_modules()}
    acting = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not torch.equal(given[0], output):
            acting.append(paths[module])

    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(note)
    network(values)
    return acting


def test_dropout_is_random_where_training_happens_and_nowhere_else() -> None:
    network = Dropouts()
    values = torch.rand(32, 64) + 1
    tuned = prepare(network, tuning("block", head=Head("fc")), 7, values)
    tuned.train()
    assert acting_dropouts(network, values) == ["between", "block.2", "last"]
    assert network.training, "dropout that a network calls as a function asks the network itself"


def test_batch_norm_before_and_after_the_trained_block_stands_still() -> None:
    network = Dropouts()
    values = torch.rand(32, 64)
    tuned = prepare(network, tuning("block", head=Head("fc")), 7, values)
    changed = moved(tuned, lambda: train(tuned, values))
    assert changed == {name for name in network.state_dict() if name.startswith(("block.", "fc."))}


def test_module_that_runs_twice_trains_in_both_places() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Linear(8, 8)
            self.shared = nn.Linear(8, 8)
            self.fc = nn.Linear(8, 3)

        def forward(self, values: Tensor) -> Tensor:
            return self.fc(self.shared(self.frozen(self.shared(values))))

    network = Twice()
    values = torch.rand(4, 8)
    tuned = prepare(network, tuning("shared", head=Head("fc")), 3, values)
    assert moved(tuned, lambda: train(tuned, values)) == {"shared.weight", "shared.bias", "fc.weight", "fc.bias"}
    with capture(network, ["shared"]) as outputs:
        network(values)
    assert torch.equal(outputs["shared"], network.shared(network.frozen(network.shared(values)))), "the last output"


def test_preparing_leaves_no_trace_of_its_trial_run(resnet: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items() if not name.startswith("fc.")}
    prepare(resnet, tuning("layer4", head=Head("fc")), 10, IMAGES)
    assert all(torch.equal(resnet.state_dict()[name], tensor) for name, tensor in before.items())
    assert hooks_of(resnet) == 0


# Hooks


def hooks_of(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_capture_takes_its_hooks_back_after_an_error(resnet: nn.Module) -> None:
    with pytest.raises(ZeroDivisionError), capture(resnet, ["layer1", "layer2"]):
        raise ZeroDivisionError
    with pytest.raises(DeclarationError, match="'layerX'"), capture(resnet, ["layer1", "layerX"]):
        pass
    with pytest.raises(RuntimeError), capture(resnet, ["layer1"]):
        resnet(torch.rand(1, 5, 32, 32))
    assert hooks_of(resnet) == 0


def test_capture_keeps_what_a_later_layer_overwrites() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    values = torch.rand(8, 4)
    with capture(network, ["0"]) as outputs:
        network(values)
    assert bool((outputs["0"] < 0).any())
    assert torch.equal(outputs["0"], network[0](values))


def test_head_that_never_runs_is_named() -> None:
    network = TwoHeads()
    network.idle = nn.Linear(8, 5)
    tuned = prepare(network, tuning("body", head=Head("idle")), 3, IMAGES)
    with pytest.raises(DeclarationError) as caught:
        tuned.logits(IMAGES)
    assert (caught.value.code, caught.value.facts["path"]) == ("head-unused", "idle")


def test_layer_whose_output_is_more_than_a_tensor_is_named() -> None:
    network = nn.Sequential(nn.LSTM(2, 2))
    with pytest.raises(DeclarationError) as caught, capture(network, ["0"]):
        network(torch.rand(1, 1, 2))
    assert (caught.value.code, caught.value.facts["layer"]) == ("layer-type", "0")
    assert hooks_of(network) == 0


# Counting


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parameters_are_counted_with_and_without_the_head(tiny_resnet: Backbone, device: str) -> None:
    network = build_network(tiny_resnet.name, tiny_resnet.network, device)
    counts = count_parameters(prepare(network, tuning("layer4.0.conv1", "bn1", head=Head("fc", hidden=8)), 10, None))
    convolution = network.get_submodule("layer4.0.conv1").weight.numel()
    head = (96 * 8 + 8) + (8 * 10 + 10)
    assert counts.trained_without_head == convolution + 2 * 32
    assert counts.trained == counts.trained_without_head + head
    assert counts.total == sum(value.numel() for value in network.parameters())
    assert counts.trained_names == (
        "bn1.weight", "bn1.bias", "layer4.0.conv1.weight", "fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias",
    )  # fmt: skip


class Ending(nn.Module):
    """A stem, a head, and something after it."""

    def __init__(self, end: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.stem, self.fc, self.end = nn.Linear(4, 6), nn.Linear(6, 3), end

    def forward(self, rows: Tensor) -> object:
        return self.end(self.fc, self.stem(rows))


@pytest.mark.parametrize(
    ("end", "warning"),
    [
        (lambda fc, rows: fc(rows), None),
        (lambda fc, rows: {"features": rows, "logits": fc(rows)}, None),
        (lambda fc, rows: fc(rows)[:, :, None, None], None),
        (lambda fc, rows: fc(rows) / 10, "the output of head 'fc' is used as logits"),
        (lambda fc, rows: fc(rows) + fc(rows * 2), "head 'fc' runs 2 times"),
    ],
)
def test_a_network_whose_output_differs_from_its_head_is_warned_of(
    end: Callable[[nn.Module, Tensor], object], warning: str | None
) -> None:
    found = warn_if_output_differs_from_head(TunedNetwork(Ending(end), ("fc",), ("fc",)), torch.rand(2, 4))
    assert (found or "").startswith(warning or "")
    assert (found is None) == (warning is None)


def test_a_head_that_sees_a_part_of_the_batch_is_refused() -> None:
    tuned = TunedNetwork(Ending(lambda fc, rows: fc(rows[:1])), ("fc",), ("fc",))
    with pytest.raises(DeclarationError) as caught:
        warn_if_output_differs_from_head(tuned, torch.rand(2, 4))
    assert (caught.value.code, caught.value.facts["path"]) == ("head-rows", "fc")
