"""Count the architectures of timm that zoo can partition into a frozen and a trained part, and explain the others.

    python benchmarks/partition.py [NAME ...] [--seconds 60] [--parameters 135]

The script tries the smallest network of each family, which is a module of timm.models. The network has random weights
and gets three random images of the smallest size that works. The last block or stage and a new linear head are trained.
A block is a module that contains modules with parameters. The last block is the block that runs last among the items of
the network's containers, or among the network's children if the containers have no blocks. The script verifies each
partition as zoo does before a run.

The script prints a row for each network: whether zoo can partition it, the CPU time, the trained block and the size of
the images. A row also has the tensors that zoo caches, or the reason why every epoch runs the whole network. The script
skips networks with more than --parameters million parameters, and networks that take more than --seconds of CPU time.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator

import timm
import torch
from timm.models._registry import _model_to_module, _module_to_models
from torch import Tensor, nn

from zoo_harness.frozen.partition.partition import partition_network
from zoo_harness.frozen.partition.side_effects import one_line
from zoo_harness.frozen.partition.verify import verify_partition
from zoo_harness.models.surgery import freeze_all_but, training_modes
from zoo_harness.models.tuned_network import TunedNetwork

# The smallest network of each family of timm 1.0.31; building all 1,580 networks to find them takes five minutes.
SMALLEST = """
    beit_base_patch16_224 halonet_h1 test_byobnet cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32
    test_convnext cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny
    deepseek_vit_412m deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1
    efficientformerv2_s0 test_efficientnet efficientvim_m1 efficientvit_b0 efficientvit_m0
    vit_tiny_patch16_dinov3_qkvb fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m
    ghostnet_050 hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny hrnet_w18_small iformer_t
    inception_next_atto ens_adv_inception_resnet_v2 adv_inception_v3 inception_v4 lcnetv2_small levit_128s
    lowformer_b0 test_mambaout test_coatnet poolformerv2_s12 gmlp_ti16_224 mobilenetv3_small_050
    mobilenetv5_base mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap nasnetalarge jx_nest_tiny
    nextvit_small test_nfnet pit_ti_224 pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002
    repghostnet_050 repvit_m1 res2next50 resnest14d test_resnet resnetv2_18 rexnet_100 selecsls42
    legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224
    swinv2_tiny_window16_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m
    twins_svt_small vgg11 visformer_tiny test_vit vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224
    vitamin_small_224 volo_d1_224 ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p8_224
"""
SIZES = (64, 96, 128, 160, 192, 224, 240, 256)
CLASSES = 10
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


class OutOfTimeError(BaseException):
    """The CPU time of one network is over the limit; ``except Exception`` does not catch this error."""


@contextlib.contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Context manager that raises :class:`OutOfTimeError` after this many seconds of CPU time."""

    def stop(*_arguments: object) -> None:
        raise OutOfTimeError

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def smallest_members() -> list[str]:
    """Return a network name for each family; for an unlisted family, the network with the fewest parameters."""
    listed = {_model_to_module[name]: name for name in SMALLEST.split() if name in _model_to_module}
    return [
        listed.get(family) or min(_module_to_models[family], key=parameters_in_millions)
        for family in sorted(_module_to_models)
    ]


def parameters_in_millions(name: str) -> float:
    """Return the number of parameters of a network, in millions, without allocating the parameters."""
    with torch.device("meta"):
        network = timm.create_model(name)
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def prepared(name: str) -> tuple[TunedNetwork, Tensor]:
    """Return the network, of which only the last block and a new head are trained, and images of a suitable size."""
    network = timm.create_model(name, num_classes=CLASSES).eval()
    images = images_for(network)
    classifier = network.default_cfg["classifier"]
    head = (
        classifier if isinstance(classifier, str) else classifier[0]
    )  # further classifiers are auxiliary heads or distillation heads
    put_linear(network, head)
    trained = (last_block(network, head, images), head)
    freeze_all_but(network, trained)
    return TunedNetwork(network, (head,), trained, training_modes(network, trained, images)), images


def images_for(network: nn.Module) -> Tensor:
    """Return three random images of the smallest size that the network accepts."""
    own = network.default_cfg["input_size"][-1]
    for size in sorted({*(size for size in SIZES if size < own), own}):
        images = torch.rand(3, 3, size, size)
        with contextlib.suppress(Exception), torch.no_grad():  # whatever the code of a network may raise
            network(images)
            return images
    raise LookupError("no size of images works")


def put_linear(network: nn.Module, path: str) -> None:
    """Replace the classifier of a network, a linear layer or a 1 x 1 convolution, by a new linear layer."""
    old = network.get_submodule(path)
    convolves = isinstance(old, nn.Conv2d)
    new: nn.Module = nn.Linear(old.in_channels if convolves else old.in_features, CLASSES)
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Sequential(nn.Flatten(1), new) if convolves else new)


def last_block(network: nn.Module, head: str, images: Tensor) -> str:
    """Return the path of the block that runs last."""
    called: list[nn.Module] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: called.append(module)) for module in network.modules()]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    paths = {module: path for path, module in network.named_modules()}
    for among in candidates(network):
        blocks = {block for block in among if holds_blocks(block) and not f"{head}.".startswith(f"{paths[block]}.")}
        found = [module for module in called if module in blocks]
        if found:
            return paths[found[-1]]
    raise LookupError("it has no blocks")


def candidates(network: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield lists of modules among which the last block is searched: items of containers, then direct children."""
    children = [child for child in network.children() if holds_blocks(child)]
    yield [block for child in children if isinstance(child, CONTAINERS) for block in child.children()]
    if len(children) == 1 and not isinstance(children[0], CONTAINERS):
        yield from candidates(children[0])
    yield children


def holds_blocks(module: nn.Module) -> bool:
    """Return whether a module contains modules with parameters."""
    return any(True for part in module.children() for _parameter in part.parameters())


def outcome(name: str, options: argparse.Namespace) -> tuple[str, str]:
    """Partition and verify a network; return the outcome, such as ``partitioned``, and a remark."""
    if (size := parameters_in_millions(name)) > options.parameters:
        return "skipped", f"{size:.0f} million parameters"
    torch.manual_seed(0)
    try:
        with limited_to(options.seconds):
            tuned, images = prepared(name)
            partition = verify_partition(partition_network(tuned, images), images)
    except OutOfTimeError:
        return "skipped", f"more than {options.seconds} s of CPU time"
    except Exception as error:  # whatever the code of a network may raise
        return "failed", one_line(error)
    remark = partition.reason or ", ".join(part.name for part in partition.kept)
    kind = "partitioned" if partition.reason is None else "whole"
    return kind, f"{tuned.trained_paths[0]}, {images.shape[-1]} px: {remark}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks of timm; default: the smallest of each family")
    parser.add_argument("--seconds", type=float, default=60, help="limit of CPU time for one network")
    parser.add_argument("--parameters", type=float, default=135, help="limit in millions")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, list[str]] = defaultdict(list)
    for name in options.names or smallest_members():
        started = time.process_time()
        kind, remark = outcome(name, options)
        found[kind].append(name)
        print(f"{name:<34} {kind:<12} {time.process_time() - started:5.1f} s  {remark}", flush=True)
    print(f"\ntimm {timm.__version__}, torch {torch.__version__}")
    for kind, names in found.items():
        print(f"{kind:<12} {len(names):>3}", "" if kind == "partitioned" else ", ".join(names))


if __name__ == "__main__":
    main()
