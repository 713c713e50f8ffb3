"""The Separation Index family as a torchmetrics metric, for training loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo_harness.separation import separation

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    try:
        from torchmetrics import Metric
    except ModuleNotFoundError:

        class Metric:
            """Stands in where torchmetrics is missing, so that the name can be imported and using it explains."""

            def __init__(self, **_: Any) -> None:
                raise UsageError("SeparationMetric needs torchmetrics: pip install 'blockzoo[torchmetrics]'")


class SeparationMetric(Metric):
    """Gathers features and labels of batches, over processes too, and computes :func:`zoo.separation` of them all.

    ``compute`` returns scalar float64 tensors ``si``, ``high_order_si``, ``soft_si``, ``anti_si`` (of ``order``) and
    ``centre_si``. ``options``: what :func:`zoo.separation` takes, and what every torchmetrics metric takes. All
    batches are kept until ``reset``.

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

    def __init__(self, order: int = 2, **options: Any) -> None:
        own = {name: options.pop(name) for name in _OPTIONS if name in options}
        super().__init__(**options)
        self.order, self.options = order, own
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch: features (N, D) and labels (N,); values are checked by ``compute``."""
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise UsageError(
                f"features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)}; "
                "expected (N, D) and (N,): pool or flatten"
            )
        self.features.append(features.detach())
        self.labels.append(labels.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of everything since the last ``reset``."""
        if not len(self.features):
            raise UsageError("no batch was given to update() since the metric was made or reset")
        features, labels = _whole(self.features), _whole(self.labels)
        result = separation(features, labels, self.order, **self.options)
        scores = {
            "si": result.si,
            "high_order_si": result.high[self.order],
            "soft_si": result.soft[self.order],
            "anti_si": result.anti[self.order],
            "centre_si": result.centre,
        }
        return {
            name: torch.tensor(score.value, dtype=torch.float64, device=features.device)
            for name, score in scores.items()
        }


_OPTIONS = ("references", "reference_labels", "metric", "normalize", "per_class", "seed", "memory_budget")


def _whole(state: list[Tensor] | Tensor) -> Tensor:
    # torchmetrics has joined them already where it gathered from several processes.
    return state if isinstance(state, Tensor) else torch.cat(state)
