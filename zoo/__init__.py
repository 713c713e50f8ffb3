"""blockzoo helps to choose an image backbone, fine-tune one of its blocks, and measure how its layers separate classes.

The package imports each public name when the name is first used. ``import zoo`` is fast, because it loads neither
torch nor another large package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo._lazy import lazy_imports
from zoo._version import __version__

if TYPE_CHECKING:
    from zoo.architecture import (
        FactoryArchitecture as FactoryArchitecture,
        TimmArchitecture as TimmArchitecture,
        TorchvisionArchitecture as TorchvisionArchitecture,
    )
    from zoo.backbone import (
        SCRATCH as SCRATCH,
        Backbone as Backbone,
        DualHead as DualHead,
        FeatureLayer as FeatureLayer,
        Head as Head,
        Preprocessing as Preprocessing,
        Recipe as Recipe,
        Training as Training,
    )
    from zoo.dataset import (
        Dataset as Dataset,
        DatasetRequest as DatasetRequest,
        ImageSplit as ImageSplit,
        LoadedDataset as LoadedDataset,
    )
    from zoo.errors import (
        DataError as DataError,
        DeclarationError as DeclarationError,
        DeviceMemoryError as DeviceMemoryError,
        HubError as HubError,
        PluginError as PluginError,
        UnknownNameError as UnknownNameError,
        UnreachableError as UnreachableError,
        UsageError as UsageError,
        WeightsError as WeightsError,
        ZooError as ZooError,
    )
    from zoo.family import BackboneFamily as BackboneFamily
    from zoo.hookspecs import hookimpl as hookimpl
    from zoo.registry import (
        Registry as Registry,
        load_registry as load_registry,
    )
    from zoo.weights import (
        FileWeights as FileWeights,
        HubWeights as HubWeights,
        KerasWeights as KerasWeights,
        LoadedWeights as LoadedWeights,
        PackageWeights as PackageWeights,
        RandomWeights as RandomWeights,
        TimmWeights as TimmWeights,
        TorchvisionWeights as TorchvisionWeights,
        WeightReader as WeightReader,
        WeightSource as WeightSource,
    )
    from zoo_harness.api import (
        Comparison as Comparison,
        DatasetStatistics as DatasetStatistics,
        FeatureRanking as FeatureRanking,
        Features as Features,
        LayerScoring as LayerScoring,
        Publication as Publication,
        Ranking as Ranking,
        Report as Report,
        Reporter as Reporter,
        RescoreRecord as RescoreRecord,
        Run as Run,
        Score as Score,
        Separation as Separation,
        SeparationIndex as SeparationIndex,
        SeparationMetric as SeparationMetric,
        Sweep as Sweep,
        anti_si as anti_si,
        centre_si as centre_si,
        compare as compare,
        dataset_stats as dataset_stats,
        evaluate as evaluate,
        features as features,
        high_order_si as high_order_si,
        in_memory as in_memory,
        layers as layers,
        load as load,
        open_run as open_run,
        publish as publish,
        pull as pull,
        rank as rank,
        rank_features as rank_features,
        report as report,
        rescore as rescore,
        score_features as score_features,
        separation as separation,
        separation_index as separation_index,
        soft_si as soft_si,
        sweep as sweep,
        train as train,
    )

__getattr__, __dir__, _HOME_OF = lazy_imports(__name__)
__all__ = [*_HOME_OF, "__version__"]
