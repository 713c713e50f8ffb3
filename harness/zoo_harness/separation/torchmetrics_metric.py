"""The Separation Index family as a torchmetrics metric, for training loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import UsageError, check_choice
from zoo_harness.separation.index import separation
from zoo_harness.separation.inputs import checked_budget, checked_per_class, checked_seed
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES
from zoo_harness.separation.validation import Array

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    try:
        from torchmetrics import Metric
    except ModuleNotFoundError:

        class Metric:
            """Stand in for the base class if torchmetrics is not installed: importing works, using it raises."""

            def __init__(self, **_: Any) -> None:
                raise UsageError("SeparationMetric needs torchmetrics: pip install 'blockzoo[torchmetrics]'")


class SeparationMetric(Metric):
    """Collect features and labels of batches, across processes too, and compute :func:`zoo.separation` of them all.

    ``compute`` returns scalar float64 tensors ``si``, ``high_order_si``, ``soft_si``, ``anti_si`` (of ``order``) and
    ``centre_si``. ``options``: those of :func:`zoo.separation` and of every torchmetrics metric. All batches are kept
    until ``reset``.

    >>> metric = SeparationMetric(order=1)
    >>> metric.update(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]))
    >>> metric.update(torch.tensor([[4.0], [6.0], [6.5]]), torch.tensor([0, 1, 1]))
    >>> float(metric.compute()["si"])
    0.8
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    features: list[Tensor]
    labels: list[Tensor]

    def __init__(self, order: int = DEFAULT_ORDER, **options: Any) -> None:
        own = {name: options.pop(name) for name in _OPTIONS if name in options}
        try:
            super().__init__(**options)
        except ValueError as error:
            raise UsageError(f"SeparationMetric: {error}") from error
        _check(order, own)
        self.order, self.options = order, own
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, features: Array | Tensor, labels: Array | Tensor) -> None:
        """Add a batch: features (N, D) and labels (N,); ``compute`` checks the values."""
        features, labels = torch.as_tensor(features), torch.as_tensor(labels)
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise UsageError(
                f"features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)}; "
                "expected (N, D) and (N,): pool or flatten"
            )
        if len(self.features) and features.shape[1] != self.features[0].shape[1]:
            raise UsageError(
                f"features of this batch are {features.shape[1]} wide, those before it {self.features[0].shape[1]}"
            )
        self.features.append(features.detach())
        self.labels.append(labels.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all batches since the last ``reset``."""
        if not len(self.features):
            raise UsageError("no batch was given to update() since the metric was made or reset")
        features, labels = _joined(self.features), _joined(self.labels)
        result = separation(features, labels, self.order, **self.options)
        return {
            each.name: torch.tensor(result.score(each).value, dtype=torch.float64, device=features.device)
            for each in SCORES
        }


_OPTIONS = ("references", "reference_labels", "metric", "normalize", "per_class", "seed", "memory_budget")


def _check(order: int, options: Mapping[str, Any]) -> None:
    """Validate arguments eagerly, not after an epoch."""
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise UsageError(f"order {order!r} is not a number of neighbours: expected 1 or more")
    check_choice("metric", options.get("metric", "euclidean"), ("euclidean", "cosine"))
    checked_budget(options.get("memory_budget", MEMORY_BUDGET))
    checked_seed(options.get("seed", 0))
    if options.get("per_class") is not None:
        checked_per_class(options["per_class"])


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    # torchmetrics has already joined them if it collected from several processes.
    return state if isinstance(state, Tensor) else torch.cat(state)
