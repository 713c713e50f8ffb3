"""Everything that ``zoo`` takes from the harness; each function imports what it needs when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo._lazy import lazy_imports

if TYPE_CHECKING:
    from zoo_harness.checkpoints.loaded_model import LoadedModel
    from zoo_harness.separation.feature_ranking import FeatureRanking as FeatureRanking, rank_features as rank_features
    from zoo_harness.separation.index import (
        anti_si as anti_si,
        centre_si as centre_si,
        high_order_si as high_order_si,
        separation as separation,
        separation_index as separation_index,
        soft_si as soft_si,
    )
    from zoo_harness.separation.result import (
        Score as Score,
        Separation as Separation,
        SeparationIndex as SeparationIndex,
    )
    from zoo_harness.separation.torchmetrics_metric import SeparationMetric as SeparationMetric

__getattr__, __dir__, _HOME_OF = lazy_imports(__name__)


def load(path_or_repository: str | Path, device: str = "cpu") -> LoadedModel:
    """The fine-tuned model of a run directory or of a published repository, in inference mode.

    A string that names an existing folder is a path; else it is ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the Hub,
    fetched once and then read from the Hub's cache. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Nothing of
    it is executed. Raises :class:`~zoo.errors.UsageError` where there is no finished checkpoint, and
    :class:`~zoo.errors.WeightsError` where the file is not the one the run wrote, or not of the network it names, or
    where a published ``config.json`` contradicts the record.
    """
    from zoo_harness.checkpoints.load import load_folder
    from zoo_harness.compute.device import choose_device
    from zoo_harness.hub.locate import find_checkpoint

    chosen = choose_device(device)  # before anything is fetched
    return load_folder(find_checkpoint(path_or_repository).path, chosen)
