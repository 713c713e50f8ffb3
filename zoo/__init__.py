"""blockzoo: choose an image backbone, fine-tune one block of it, measure how far its layers separate the classes.

This is the one public door. Names are resolved when they are first used, so ``import zoo`` costs next to nothing and
pulls in neither torch nor anything else heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zoo.backbone import (
        SCRATCH,
        Backbone,
        DualHead,
        FactoryArchitecture,
        FeatureLayer,
        FileWeights,
        Head,
        HubWeights,
        KerasWeights,
        PackageWeights,
        Preprocessing,
        RandomWeights,
        Recipe,
        TimmArchitecture,
        TimmWeights,
        TorchvisionArchitecture,
        TorchvisionWeights,
        Training,
    )
    from zoo.dataset import Dataset, DatasetRequest, ImageSplit, LoadedDataset
    from zoo.errors import (
        DataError,
        DeclarationError,
        DeviceMemoryError,
        HubError,
        PluginError,
        UnknownNameError,
        UnreachableError,
        UsageError,
        WeightsError,
        ZooError,
    )
    from zoo.hookspecs import hookimpl
    from zoo.registry import Registry, load_registry
    from zoo_harness.checkpoint import load
    from zoo_harness.feature_ranking import FeatureRanking, rank_features
    from zoo_harness.score import Score
    from zoo_harness.separation import (
        Separation,
        SeparationIndex,
        anti_si,
        centre_si,
        high_order_si,
        separation,
        separation_index,
        soft_si,
    )
    from zoo_harness.separation_metric import SeparationMetric

_HOMES = {
    "zoo.backbone": (
        "Backbone", "DualHead", "FactoryArchitecture", "FeatureLayer", "FileWeights", "Head", "HubWeights",
        "KerasWeights", "PackageWeights", "Preprocessing", "RandomWeights", "Recipe", "SCRATCH",
        "TimmArchitecture", "TimmWeights", "TorchvisionArchitecture", "TorchvisionWeights", "Training",
    ),
    "zoo.dataset": ("Dataset", "DatasetRequest", "ImageSplit", "LoadedDataset"),
    "zoo.errors": (
        "DataError", "DeclarationError", "DeviceMemoryError", "HubError", "PluginError", "UnknownNameError",
        "UnreachableError", "UsageError", "WeightsError", "ZooError",
    ),
    "zoo.hookspecs": ("hookimpl",),
    "zoo.registry": ("Registry", "load_registry"),
    # The only names that come from the harness; by name, so that no import of zoo ever pays for torch.
    "zoo_harness.checkpoint": ("load",),
    "zoo_harness.feature_ranking": ("FeatureRanking", "rank_features"),
    "zoo_harness.score": ("Score",),
    "zoo_harness.separation": (
        "Separation", "SeparationIndex", "anti_si", "centre_si", "high_order_si", "separation", "separation_index",
        "soft_si",
    ),
    "zoo_harness.separation_metric": ("SeparationMetric",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SCRATCH",
    "Backbone",
    "DataError",
    "Dataset",
    "DatasetRequest",
    "DeclarationError",
    "DeviceMemoryError",
    "DualHead",
    "FactoryArchitecture",
    "FeatureLayer",
    "FeatureRanking",
    "FileWeights",
    "Head",
    "HubError",
    "HubWeights",
    "ImageSplit",
    "KerasWeights",
    "LoadedDataset",
    "PackageWeights",
    "PluginError",
    "Preprocessing",
    "RandomWeights",
    "Recipe",
    "Registry",
    "Score",
    "Separation",
    "SeparationIndex",
    "SeparationMetric",
    "TimmArchitecture",
    "TimmWeights",
    "TorchvisionArchitecture",
    "TorchvisionWeights",
    "Training",
    "UnknownNameError",
    "UnreachableError",
    "UsageError",
    "WeightsError",
    "ZooError",
    "__version__",
    "anti_si",
    "centre_si",
    "high_order_si",
    "hookimpl",
    "load",
    "load_registry",
    "rank_features",
    "separation",
    "separation_index",
    "soft_si",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
