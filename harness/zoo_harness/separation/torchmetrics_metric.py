"""Define a torchmetrics metric that computes the Separation Index and related scores in training loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import UsageError
from zoo_harness.separation.index import separation
from zoo_harness.separation.inputs import Options, ScoringOptions
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES
from zoo_harness.separation.validation import Array, checked_integer, one_dimensional

if TYPE_CHECKING:
    from torchmetrics import Metric
else:
    try:
        from torchmetrics import Metric
    except ModuleNotFoundError:

        class Metric:
            """Replace the base class if torchmetrics is not installed; creating an instance raises ``UsageError``."""

            def __init__(self, **_: Any) -> None:
                message = "SeparationMetric needs torchmetrics; try pip install 'blockzoo[torchmetrics]'"
                raise UsageError(message, code="torchmetrics-missing")


class SeparationMetric(Metric):
    """Collect batches of features and labels, and compute :func:`zoo.separation` on all batches together.

    Batches may come from several processes. ``compute`` returns a dictionary of scalar float64 tensors with the keys
    ``si``, ``high_order_si``, ``soft_si``, ``anti_si`` and ``centre_si``. ``order``: the number of neighbours for the
    high-order, soft and anti SI. ``options``: the options of :func:`zoo.separation`, and the options that every
    torchmetrics metric accepts. The metric keeps all batches in memory until ``reset`` is called.

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
        self.options = {name: options.pop(name) for name in Options.__annotations__ if name in options}
        ScoringOptions(**self.options)  # reports invalid options now instead of at the end of an epoch
        self.order = checked_integer("order", order, 1)
        try:
            super().__init__(**options)
        except ValueError as error:
            raise UsageError(f"options of SeparationMetric are wrong: {error}", code="option-unknown") from error
        self.add_state("features", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, features: Array | Tensor, labels: Array | Tensor) -> None:
        """Add a batch of features (N, D) and labels (N,) or (N, 1). Only ``compute`` checks the values."""
        features, labels = torch.as_tensor(features), one_dimensional(torch.as_tensor(labels))
        width = self.features[0].shape[1] if len(self.features) else "D"
        if features.ndim != 2 or labels.shape != features.shape[:1] or width not in ("D", features.shape[1]):
            shapes = tuple(features.shape), tuple(labels.shape)
            message = f"features and labels have the wrong shapes: {shapes}; expected (N, {width}) and (N,)"
            raise UsageError(message, code="array-shape", shapes=shapes)
        self.features.append(features.detach())
        self.labels.append(labels.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return the scores of all batches since the last ``reset``."""
        if not len(self.features):
            raise UsageError("SeparationMetric is empty; expected a call of update() before compute()", code="no-batch")
        # If there are several processes, torchmetrics has already concatenated the batches to tensors.
        features, labels = (
            state if isinstance(state, Tensor) else torch.cat(state) for state in (self.features, self.labels)
        )
        result = separation(features, labels, self.order, **self.options)
        return {
            each.name: torch.tensor(result.score(each).value, dtype=torch.float64, device=features.device)
            for each in SCORES
        }
