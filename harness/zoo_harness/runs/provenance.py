"""Record the origin of a run: versions, host, and the plugin that declares the backbone."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
from pathlib import Path

import torch
from torch import nn

from zoo.backbone import Backbone, Tuning
from zoo.registry import load_registry
from zoo_harness.models.fingerprints import digest_of_source
from zoo_harness.records.run import BackboneRecord, HostRecord

UNREGISTERED = "unregistered"
_PACKAGES = ("blockzoo", "torch", "torchvision", "timm", "numpy", "safetensors", "datasets", "huggingface_hub")


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that can change a result."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def host(device: torch.device, processes: int = 1) -> HostRecord:
    """Describe the machine and the number of processes of the run, without any name that identifies the owner."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return HostRecord(
        platform=platform.platform(terse=True),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(memory, 1),
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        processes=processes,
    )


def peak_memory_gib() -> float:
    """Return the peak memory use of this process so far, in GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def backbone_record(backbone: Backbone, tuning: Tuning, built: nn.Module) -> BackboneRecord:
    """Record a backbone: its declaration, the recipe's feature layers, its plugin, and the digest of its source code.

    If no plugin declares the backbone, ``UNREGISTERED`` replaces the names of the plugin.
    """
    plugin = load_registry().declares(backbone)
    network = backbone.network
    made_by = network.name if network.kind == "factory" else ""
    return BackboneRecord(
        name=backbone.name,
        title=backbone.title or backbone.name,
        network=network.name,
        network_kind=network.kind,
        plugin=plugin.entry_point if plugin else UNREGISTERED,
        distribution=plugin.distribution if plugin else UNREGISTERED,
        version=plugin.version if plugin else UNREGISTERED,
        paper=backbone.paper,
        pretrained_on=backbone.pretrained_on,
        imagenet_top1=backbone.imagenet_top1,
        features=tuning.features,
        source_sha256=digest_of_source(built, made_by) or None,
        derived_from=backbone.derived_from,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
