"""The nearest reference samples of each sample, exact.

The nearest samples are those that float64 arithmetic finds on the features as given: squared differences are summed
in a fixed order, equal sums are ties, and the lowest index wins a tie. To compare all pairs that way is far too slow.
So a matrix product of short vectors gives every pair a lower bound of its distance, which excludes almost all of them;
longer vectors exclude most of the survivors; only what is left is compared in float64.

1. Equal rows are collapsed to groups (:mod:`zoo_harness.equal_rows`): they are at distance 0, whatever their number.
2. Every group gets a vector w of few numbers, and a bound h of its error, such that for any two
   true distance >= |w_i - w_j| - h_i - h_j (:mod:`zoo_harness.contraction`).
3. Groups are ordered so that near ones are in one tile of the square of all pairs, and each is given a radius R: it is
   not less than the distance of its last neighbour, since as many others, compared in float64, lie within R.
4. One product a tile of pairs: a pair survives unless its bound exceeds the radii of both. It is seen once, for both.
5. Survivors meet the same bound with longer vectors, nearest first; the rest is compared, which makes radii smaller.

Why a pair excluded in step 4 cannot count. Let q = |w_i - w_j|^2, and suppose the true distance is at most R. Then
sqrt q <= R + h_i + h_j, and since (a + b)^2 <= (1 + t) a^2 + (1 + 1/t) b^2 and (h_i + h_j)^2 <= 2 h_i^2 + 2 h_j^2,

    q/2 <= (1 + t) R^2 / 2 + (1 + 1/t)(h_i^2 + h_j^2)    for any t > 0.

The product is the inner product of (w_i, c_i, 1) and (-w_j, 1, c_j) with c = n/2 - kn - a/2 - b h^2, n = |w|^2 and
b = 5/4 (1 + 1/t): m terms. With u the unit roundoff of its arithmetic and g = 4mu / (1 - 4mu), where 4 covers units
that cut off instead of rounding, it errs by at most g(n_i + n_j) however its terms are ordered or fused; rounding n/2
by (u/2)(n_i + n_j), computing n by less than m 2^-52 of it; and underflow, even where subnormal numbers are flushed,
by a = 16 m times the smallest normal number. So k = g + 3u + m 2^-52 makes it a lower bound of q/2 - (1 + 1/t)(h_i^2 +
h_j^2), 5/4 standing in for 1 because of the error that h^2 has in it. A pair is excluded where the product exceeds
(1 + t) R^2 / 2, rounded upwards.

Vectors of bfloat16 have exact products in float32, so that the units which multiply nothing but bfloat16, two to ten
times as fast, may be used as they are; c is then given as a sum of three such numbers, 2^-25 of it away at most.

If too much survives the search starts again, keeping the radii: with whole rows in bfloat16, where no few directions
tell rows apart, then in float32 and in float64, where the rows form tight clusters, say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from zoo_harness.compute.out_of_memory import within_device_memory
from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn.best_so_far import BestKnown
from zoo_harness.separation.knn.candidates import Pairs, Shape, Survivors, Tile
from zoo_harness.separation.knn.candidates_torch import SMALLEST_TILE, TiledProducts
from zoo_harness.separation.knn.duplicates import Groups, Rows
from zoo_harness.separation.knn.expansion import Neighbours, of_samples
from zoo_harness.separation.knn.kernel_choice import kernel_shape
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.operand import BFLOAT16, FLOAT32, FLOAT64, Operand, Precision
from zoo_harness.separation.knn.projection import Directions, choose_directions

MEMORY_BUDGET = 768 * 2**20
STARTING_TILES = 1  # near each, in which its first radius is looked for
COMPARED_PER_ROW = 32  # on average; with more, float64 products are cheaper than comparing them one by one
WIDEST_FLOAT32 = 2**15  # features; beyond, the error of a float32 product excludes too little


def nearest_neighbours(
    features: Tensor,
    labels: Tensor,
    order: int = 1,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Neighbours:
    """Return the ``order`` nearest reference samples of each sample. A faster search would replace this function.

    ``features``: (N, D), finite, D at least 1, dtype one of ``EXACT_DTYPES``. ``labels``: (N,) int64 on the same
    device; they do not steer the search, they only say which of the tied samples are alike. Without ``references``
    samples are each other's neighbours, never their own, and ``order`` is at most N - 1; else (M, D) and (M,), of
    which a sample equal to it is a neighbour at distance 0. ``memory_budget``: bytes, beyond the input, to work in;
    with references both sets are copied once besides. A device that has less is given a smaller budget, and
    :class:`DeviceMemoryError` is raised where the smallest tiles do not fit.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 1, 0]), 2).indices
    tensor([[1, 2],
            [0, 2],
            [1, 0]])
    """

    def find(budget: int) -> Neighbours:
        return _found(features, labels, order, references, reference_labels, budget)

    count, width = len(features) + (0 if references is None else len(references)), features.shape[1]
    needed = f"{(300 * count + _least_budget(width)) / 2**20:,.1f} MiB"
    what = f"the search among {count:,} x {width:,} features on {features.device}, which needs about {needed},"
    return within_device_memory(find, memory_budget, _least_budget(width), what)


def _least_budget(width: int) -> int:
    """The budget at which tiles are smallest; a smaller one is taken for this one where memory is concerned."""
    return 2 * (2 * SMALLEST_TILE * width * 8 + SMALLEST_TILE**2 * 42)


def _found(
    features: Tensor,
    labels: Tensor,
    order: int,
    references: Tensor | None,
    reference_labels: Tensor | None,
    memory_budget: int,
) -> Neighbours:
    split = None if references is None else len(references)
    if references is not None:
        assert reference_labels is not None  # noqa: S101 - the caller has both or neither
        same = references.dtype == features.dtype
        parts = (references, features) if same else (references.to(torch.float64), features.to(torch.float64))
        features, labels = torch.cat(parts), torch.cat([reference_labels, labels])
    rows = Rows.of(features, memory_budget)
    groups = Groups.of(rows, labels, split)
    with full_precision(features.device):
        best = _search(rows, groups, order, split, memory_budget)
    return of_samples(rows, groups, best, split)


def _search(rows: Rows, groups: Groups, order: int, split: int | None, memory_budget: int) -> BestKnown:
    asking = groups.units.count > 0
    # Of a group with more members than places, every member has its neighbours at distance 0.
    asking &= groups.size - int(split is None) < order
    radius = torch.where(asking, math.inf, -math.inf).to(torch.float64)
    if not asking.any():
        return BestKnown(groups, order)
    left = (groups.size > 0 if split is None else asking).nonzero()[:, 0]
    right = (groups.size > 0).nonzero()[:, 0]
    frame = Frame(rows, groups.first[torch.cat([left, right]).unique() if split else right])
    most = (COMPARED_PER_ROW + 8 * order) * len(groups.first)
    attempts = _attempts(frame, groups.first[left], groups.first[right], order, memory_budget, symmetric=split is None)
    for precision, directions in attempts:
        sweep = _Sweep(frame, groups, order, radius, memory_budget, directions, precision, symmetric=split is None)
        with suppress(_TooManySurvivors), full_precision(groups.first.device, precision.setting):
            return sweep.run(left, right, math.inf if precision is FLOAT64 else most)
    raise AssertionError("the last attempt takes whatever survives")


def _attempts(
    frame: Frame, asking: Tensor, offered: Tensor, order: int, memory_budget: int, *, symmetric: bool
) -> Iterator[tuple[Precision, Directions | None]]:
    """What to try, the fastest first."""
    if frame.width <= WIDEST_FLOAT32:
        pairs = len(asking) * len(offered)
        if kernel_shape(asking.device, torch.bfloat16, pairs, symmetric=symmetric) is not None:
            yield BFLOAT16, None  # takes less time there than finding directions
        directions = choose_directions(frame, asking, offered, order, memory_budget)
        if directions is not None:
            yield BFLOAT16, directions
            if directions.coarse is not None:
                yield BFLOAT16, directions.whole
        yield FLOAT32, None
    yield FLOAT64, None


class _TooManySurvivors(Exception):  # noqa: N818 - no error: it ends an attempt
    pass


class _Sweep:
    """One pass over all pairs of groups: each pair once in a self join, or every query with every reference."""

    def __init__(
        self,
        frame: Frame,
        groups: Groups,
        order: int,
        radius: Tensor,
        memory_budget: int,
        directions: Directions | None,
        precision: Precision,
        *,
        symmetric: bool,
    ) -> None:
        self.frame, self.groups, self.order, self.symmetric = frame, groups, order, symmetric
        self.radius, self.memory_budget, self.directions = radius, memory_budget, directions
        self.precision = precision
        self.best = BestKnown(groups, order)

    def run(self, left: Tensor, right: Tensor, most: float) -> BestKnown:
        """Return the nearest groups of each group on the left, unless more than ``most`` pairs had to be compared."""
        self.remaining = most
        shape = kernel_shape(left.device, self.precision.vectors, len(left) * len(right), symmetric=self.symmetric)
        # The kernel needs all vectors at hand, and no memory for tiles.
        keep = (
            self.memory_budget * 7 // 16 if shape is None else self.memory_budget * 5 // (8 if self.symmetric else 16)
        )
        multiple = 1 if shape is None else shape.depth
        self.left = Operand(self.frame, self.groups, left, self.directions, self.precision, keep, multiple)
        self.right = self.left
        if not self.symmetric:
            self.right = Operand(self.frame, self.groups, right, self.directions, self.precision, keep, multiple)
        self._tighten()
        fused = shape is not None and self.left.vectors is not None and self.right.vectors is not None
        memory = self.memory_budget // 4 if fused else self.memory_budget * 3 // 8
        self.products = TiledProducts(self.left, self.right, memory, listed=not fused)
        self.tile = self.products.tile
        self._start()
        listed = self._listed(shape if fused else None)
        for pairs in listed.survivors(self._pairs_of_tiles(), symmetric=self.symmetric):
            self._settle(pairs)
        return self.best

    def _listed(self, shape: Shape | None) -> Survivors:
        """What lists the survivors: the kernel, or torch."""
        if shape is None:
            return self.products
        from zoo_harness.separation.knn.candidates_triton import (
            FusedProducts,  # imports triton, which not every torch comes with
        )

        del self.products  # its memory is needed for the list
        return FusedProducts(self.left, self.right, self.memory_budget // 512, shape)

    # Tiles

    def _slices(self, side: Operand) -> list[slice]:
        return [slice(start, min(start + self.tile, len(side.ids))) for start in range(0, len(side.ids), self.tile)]

    def _pairs_of_tiles(self) -> Iterator[Tile]:
        """Every tile, those whose rows and columns are near each other first."""
        tiles = self._slices(self.left), self._slices(self.right)
        order = self._distances_of_tiles(*tiles).flatten().argsort().tolist()
        for place in order:
            one, other = divmod(place, len(tiles[1]))
            if not self.symmetric or one <= other:
                yield tiles[0][one], tiles[1][other]

    def _distances_of_tiles(self, rows: list[slice], columns: list[slice]) -> Tensor:
        if self.directions is None:  # in no particular order, so that each is to meet another each time
            apart = (torch.arange(len(columns)) - torch.arange(len(rows))[:, None]) % len(columns)
            return torch.minimum(apart, len(columns) - apart) if self.symmetric else apart

        def centres(side: Operand, places: list[slice]) -> Tensor:
            return torch.stack([side.coarse.of(place).to(torch.float64).mean(0) for place in places])

        return torch.cdist(centres(self.left, rows), centres(self.right, columns))

    # Radii

    def _start(self) -> None:
        """Give each row a radius: that of its nearest among those that the bounds propose in the tiles near it."""
        tiles = self._slices(self.left), self._slices(self.right)
        near = self._distances_of_tiles(*tiles).argsort(1)[:, :STARTING_TILES].tolist()
        for place, rows in enumerate(tiles[0]):
            proposed = [self._nearest_in_tile(rows, tiles[1][column]) for column in near[place]]
            distances = torch.cat(proposed, 1)
            if distances.shape[1] >= self.order:
                nearest = distances.topk(self.order, largest=False).values
                self._shrink(self.left.ids[rows], nearest[:, -1])
        self._tighten()

    def _nearest_in_tile(self, rows: slice, columns: slice) -> Tensor:
        """The squared distances, (rows, at most order), of the pairs with the least bounds; infinite for no pair."""
        ids = self.left.ids[rows], self.right.ids[columns]
        lower = self.products.lower_bounds(rows, columns)
        lower.masked_fill_(ids[0][:, None] == ids[1], math.inf)
        bound, at = lower.topk(min(self.order, len(ids[1])), largest=False)
        here = ids[0][:, None].expand_as(at)
        exact = self._distances(here.flatten(), ids[1][at].flatten()).view_as(bound)
        return exact.masked_fill_(bound == math.inf, math.inf)

    def _distances(self, here: Tensor, there: Tensor) -> Tensor:
        return self.frame.rows.squared_distances(self.groups.first[here], self.groups.first[there])

    def _shrink(self, ids: Tensor, squared: Tensor) -> None:
        found = self.frame.scaled(squared).sqrt_().mul_(1 + 2.0**-40).add_(2.0**-500)
        self.radius[ids] = torch.minimum(self.radius[ids], found)

    def _tighten(self) -> None:
        self.left.tighten(self.radius)
        if not self.symmetric:
            self.right.limit.fill_(-math.inf)

    # Survivors

    def _settle(self, pairs: Pairs) -> None:
        """Compare the pairs that are still near enough, nearest first."""
        here, there, lower = pairs
        still = lower <= self._at_most(here, there)
        if not self.symmetric:
            still &= self.left.ids[here] != self.right.ids[there]
        kept = still.nonzero()[:, 0]  # once: a device is waited for each time
        here, there, lower = here[kept], there[kept], lower[kept]
        ids = self.left.ids[here], self.right.ids[there]
        if self.left.fine and self.right.fine:
            bound = self._fine_bounds(here, there)
        else:
            bound = lower.to(torch.float64).clamp_(min=0).mul_(2 / (1 + self.precision.slack)).sqrt_()
        # Nearest first, by the radius they are to fall in: what is compared early spares the others.
        for part in (bound / self._reach(*ids)).argsort().tensor_split(4):
            one, other = ids[0][part], ids[1][part]
            near = (bound[part] <= self._reach(one, other)).nonzero()[:, 0]
            self._compare(one[near], other[near])

    def _compare(self, here: Tensor, there: Tensor) -> None:
        self.remaining -= len(here)
        if self.remaining < 0:
            raise _TooManySurvivors
        self.best.compare(self.frame.rows, here, there, both=self.symmetric)
        self._shrink(self.left.ids, self.best.distance[self.left.ids, -1])
        self._tighten()

    def _reach(self, here: Tensor, there: Tensor) -> Tensor:
        """The larger radius of each pair."""
        return torch.maximum(self.radius[here], self.radius[there]) if self.symmetric else self.radius[here]

    def _at_most(self, here: Tensor, there: Tensor) -> Tensor:
        if not self.symmetric:
            return self.left.limit[here]
        return torch.maximum(self.left.limit[here], self.right.limit[there])

    def _fine_bounds(self, here: Tensor, there: Tensor) -> Tensor:
        """Lower bounds of the true distances by the longer vectors, float64."""
        one, other = self.left.fine, self.right.fine
        assert one and other  # noqa: S101, PT018 - the caller has looked
        left_vectors, right_vectors = one.of(slice(None)), other.of(slice(None))
        bounds = torch.empty(len(here), dtype=torch.float64, device=here.device)
        shrink = 1 - (one.width + 8) * torch.finfo(one.dtype).eps
        step = max(1, 2**19 // one.width)
        for target, left, right in zip(bounds.split(step), here.split(step), there.split(step), strict=True):
            apart = (left_vectors[left] - right_vectors[right]).square_().sum(1).to(torch.float64).sqrt_()
            target.copy_(apart.mul_(shrink).sub_(one.error[left]).sub_(other.error[right]))
        return bounds
