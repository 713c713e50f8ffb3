"""Counts what trains, with and without the head, and names it tensor by tensor."""

from __future__ import annotations

from zoo_harness.run_record import ParametersRecord
from zoo_harness.surgery import TunedNetwork


def count_parameters(tuned: TunedNetwork) -> ParametersRecord:
    """Numbers and names of the parameters that train; works on the meta device."""
    prefixes = tuple(f"{path}." for path in tuned.head_paths)
    trained = tuned.trained_parameters()
    return ParametersRecord(
        total=sum(parameter.numel() for parameter in tuned.network.parameters()),
        trained=sum(parameter.numel() for parameter in trained.values()),
        trained_without_head=sum(
            parameter.numel() for name, parameter in trained.items() if not name.startswith(prefixes)
        ),
        trained_names=tuple(trained),
    )
