"""Which directions the short and the longer vectors of a search keep, chosen by what they would cost on these data.

A choice here changes how long a search takes, never what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.knn.lower_bounds import Frame, principal_directions

FEWEST_ROWS, FEWEST_COLUMNS = 4096, 64  # below, whole rows are as fast
RANKS = (32, 64, 96, 128, 192, 256, 384)
PROBES, TARGETS = 48, 8192
ARRANGED_BY = 8  # directions by which rows are ordered

# Seconds, of which only the ratios matter: a pair in a tile, each number in its product, a survivor by longer vectors.
_PAIR, _NUMBER, _SURVIVOR = 2.5e-9, 2e-11, 2e-6
_FEW_SURVIVORS = 16.0  # of a row: fewer are not worth longer vectors


@dataclass(frozen=True, eq=False)
class Directions:
    """Matrices (D, P) of singular values at most 1: ``coarse`` for all pairs, ``fine`` for survivors, if any.

    ``coarse`` is ``None`` where all pairs take whole rows. ``leading``: (D, P), by which rows are put in order.
    """

    leading: Tensor
    coarse: Tensor | None
    fine: Tensor | None

    @classmethod
    def along(cls, coarse: Tensor, fine: Tensor | None = None) -> Directions:
        """Those of a basis whose first columns have the most variance."""
        return cls(coarse[:, :ARRANGED_BY].contiguous(), coarse.contiguous(), fine)

    @property
    def whole(self) -> Directions:
        """The same with whole rows for all pairs."""
        return Directions(self.leading, None, None)

    def arrange(self, frame: Frame, chosen: Tensor, leaf: int) -> Tensor:
        """An order of these rows in which each run of ``leaf`` holds rows near each other."""
        places = torch.cat([frame.centred(part) @ self.leading for part in chosen.split(frame.rows.step)])
        return torch.cat(_halves(places, torch.arange(len(chosen), device=chosen.device), leaf))


def choose_directions(
    frame: Frame, asking: Tensor, offered: Tensor, order: int, memory_budget: int
) -> Directions | None:
    """The directions for a search of ``asking`` rows among ``offered`` ones; ``None`` where none are worth finding.

    Of very wide rows only so many directions are considered as fit, with a sample, into a part of the budget.
    """
    room = memory_budget // (32 * frame.width)
    ranks = [rank for rank in RANKS if rank <= min(frame.width // 2, room // 4)]  # from a sample of `room` rows
    if not ranks or min(len(asking), len(offered)) < FEWEST_ROWS:
        return None
    basis = principal_directions(frame, offered, ranks[-1], sample=room)
    survivors = _survivors(frame, asking, offered, basis, ranks, order)
    offers = len(offered)

    def cost(rank: int, surviving: float) -> float:
        return offers / 2 * (_PAIR + _NUMBER * rank) + _SURVIVOR * surviving

    best = min(range(len(ranks)), key=lambda place: cost(ranks[place], survivors[place]))
    if cost(frame.width, 2.0 * order) <= cost(ranks[best], survivors[best]):
        return Directions.along(basis).whole
    fine = next((rank for rank, few in zip(ranks, survivors, strict=True) if few <= _FEW_SURVIVORS), ranks[-1])
    longer = basis[:, :fine].contiguous() if fine > ranks[best] else None
    return Directions.along(basis[:, : ranks[best]], longer)


def _survivors(
    frame: Frame, asking: Tensor, offered: Tensor, basis: Tensor, ranks: list[int], order: int
) -> list[float]:
    """How many pairs of a row would survive with so many directions, estimated from a few rows."""
    probes = frame.centred(asking[:: max(1, len(asking) // PROBES)][:PROBES]).float()
    targets = offered[:: max(1, len(offered) // TARGETS)]
    nearest = [_squared(probes, frame.centred(part).float()) for part in offered.split(frame.rows.step)]
    # A probe may be among the rows offered: what is next to nothing is the probe itself.
    distances = torch.cat(nearest, 1)
    distances[distances < 1e-6 * distances.median()] = torch.inf
    reach = distances.topk(min(order, distances.shape[1]), largest=False).values[:, -1:]
    directions = basis.float()
    of_probes, counts = probes @ directions, torch.zeros(len(ranks), dtype=torch.float64, device=probes.device)
    for part in targets.split(frame.rows.step):
        centred = frame.centred(part).float()
        along = centred @ directions
        for place, rank in enumerate(ranks):
            bound = _squared(_with_rest(of_probes, probes, rank), _with_rest(along, centred, rank))
            counts[place] += (bound <= reach).sum()
    return (counts * (len(offered) / len(targets) / len(probes))).tolist()


def _with_rest(along: Tensor, whole: Tensor, rank: int) -> Tensor:
    kept = along[:, :rank]
    rest = (whole.square().sum(1) - kept.square().sum(1)).clamp(min=0).sqrt()
    return torch.cat([kept, rest[:, None]], 1)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    product = left @ right.T
    return (left.square().sum(1)[:, None] + right.square().sum(1)).sub_(product, alpha=2)


def _halves(places: Tensor, rows: Tensor, leaf: int) -> list[Tensor]:
    """Rows split at the median of the widest direction until no part has more than ``leaf``."""
    if len(rows) <= leaf:
        return [rows]
    inside = places[rows]
    order = inside[:, int(inside.var(0).argmax())].argsort()
    half = -(-len(rows) // leaf) // 2 * leaf
    return _halves(places, rows[order[:half]], leaf) + _halves(places, rows[order[half:]], leaf)
