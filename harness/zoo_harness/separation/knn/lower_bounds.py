"""Short vectors whose distances are lower bounds of the true ones, with the error of every rounding in the account.

A row x as given becomes u = s(x - m), m a median and s a power of two. Let A be a (D, P) matrix whose largest
singular value is at most 1, and

    f(u) = (A'u, r(u)),   r(u)^2 = |u|^2 - |A'u|^2.

r is a seminorm, since I - AA' has no negative eigenvalue. So |r(u) - r(v)| <= r(u - v), and

    |f(u) - f(v)|^2 <= |A'(u - v)|^2 + r(u - v)^2 = |u - v|^2,    |f(u)| = |u|.

P + 1 numbers thus stand for D. The bound is close where A spans the directions of most variance, and it holds whatever
A is: that A was found by a randomised method on a sample costs no exactness. Its singular values are made to be at most
1 by dividing by sqrt(1 + |V'V - I|), V being the orthonormal basis as found. Without A, f(u) = u.

Let w be f(u) as computed, rounded to the dtype of the products. The record keeps, for every row, a bound h of
|w - f(u)|: what the last rounding moved, which is measured, and what the steps before it can have moved:

* u: 2^-53 of each coordinate, from one addition; A'u: at most D sqrt(P) 2^-52 |u|;
* r: its square errs by at most e = 8 (D + P) sqrt(P + 1) 2^-53 |u|^2, so r itself by min(sqrt e, e / r).

So for any two rows, true distance >= |w_i - w_j| - h_i - h_j.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Rows

SAMPLE = 4096  # rows from which the directions of most variance are found
UNDERFLOW = 2.0**-505  # no float64 square that matters is lost above it


class Frame:
    """Where the rows are centred, and the power of two that scales them: |u| is at most 1 in every coordinate."""

    def __init__(self, rows: Rows, chosen: Tensor) -> None:
        self.rows = rows
        parts = chosen.split(rows.step)
        # Of some rows: enough against a common offset, and an outlier hardly moves a median.
        spread = chosen[:: max(1, len(chosen) // rows.step)][: rows.step]
        centre = rows.exact(spread).median(0).values
        reach = float(torch.stack([(rows.exact(part) - centre).abs().amax() for part in parts]).amax())
        # At least 300: a larger scale would raise the underflow of the exact squares above our bound on underflow.
        self.exponent = max(math.frexp(reach)[1], 300)
        self._shift = centre * -math.ldexp(1.0, -self.exponent)
        self._factor = math.ldexp(1.0, rows.exponent - self.exponent)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.rows.features.shape[1]

    def centred(self, samples: Tensor, columns: slice = slice(None)) -> Tensor:
        """The rows u of these samples, float64, or some columns of them."""
        given = self.rows.features[:, columns][samples].to(torch.float64)
        return torch.add(self._shift[columns], given, alpha=self._factor)

    def scaled(self, squared: Tensor) -> Tensor:
        """Squared distances of :class:`Rows` in the units of u."""
        scale = math.ldexp(1.0, -self.exponent)
        return squared * scale * scale


class Contraction:
    """The vectors w of some rows, and the bound h of each one's error.

    ``vectors``: (G, width) where they are kept, ``None`` where they are computed anew each time; in memory each is
    filled up with zeros to a multiple of ``multiple`` numbers. ``error``: (G,) float64. ``norms``: (G,) float64, |w|^2.
    """

    def __init__(
        self,
        frame: Frame,
        chosen: Tensor,
        basis: Tensor | None,
        dtype: torch.dtype,
        *,
        keep: bool,
        multiple: int = 1,
    ) -> None:
        self._frame, self._chosen, self._basis, self.dtype = frame, chosen, basis, dtype
        self.width = frame.width if basis is None else basis.shape[1] + 1
        self.error = torch.empty(len(chosen), dtype=torch.float64, device=chosen.device)
        self.norms = torch.empty_like(self.error)
        self.vectors = None
        if keep:
            full = -(-self.width // multiple) * multiple
            self.vectors = torch.zeros(len(chosen), full, dtype=dtype, device=chosen.device)[:, : self.width]
        step = frame.rows.step
        for start in range(0, len(chosen), step):
            place = slice(start, min(start + step, len(chosen)))
            self._measure(place)

    def of(self, place: slice) -> Tensor:
        """The vectors w of these rows."""
        if self.vectors is not None:
            return self.vectors[place]
        step = self._frame.rows.step
        part = self._chosen[place]
        if len(part) <= step:
            return self._exact(part)[0].to(self.dtype)
        result = torch.empty(len(part), self.width, dtype=self.dtype, device=part.device)
        for target, samples in zip(result.split(step), part.split(step), strict=True):
            target.copy_(self._exact(samples)[0])
        return result

    @property
    def in_pieces(self) -> bool:
        """Whether these are whole rows that are not kept, which :meth:`piece` gives a few columns at a time."""
        return self.vectors is None and self._basis is None

    def piece(self, place: slice, columns: slice) -> Tensor:
        """Some columns of the vectors w of these rows."""
        return self._frame.centred(self._chosen[place], columns).to(self.dtype)

    def _measure(self, place: slice) -> None:
        exact, earlier = self._exact(self._chosen[place])
        rounded = exact.to(self.dtype)
        if self.vectors is not None:
            self.vectors[place] = rounded
        back = rounded.to(torch.float64)
        moved = (exact - back).square_().sum(1).sqrt_()
        self.norms[place] = back.square_().sum(1)
        self.error[place] = (moved + earlier) * (1 + 2.0**-30) + UNDERFLOW

    def _exact(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """f(u) in float64, and a bound of its error."""
        centred = self._frame.centred(samples)
        squares = centred.square().sum(1)
        if self._basis is None:
            return centred, squares.sqrt() * 2.0**-51
        depth, rank = self._basis.shape
        along = centred @ self._basis
        rest = (squares - along.square().sum(1)).clamp_(min=0).sqrt_()
        error = squares * (8 * (depth + rank) * math.sqrt(rank + 1) * 2.0**-53)
        of_rest = torch.minimum(error.sqrt(), error / rest.clamp(min=UNDERFLOW))
        of_along = squares.sqrt() * ((depth * math.sqrt(rank) + 2) * 2.0**-52)
        return torch.cat([along, rest[:, None]], 1), of_rest + of_along


def principal_directions(frame: Frame, chosen: Tensor, rank: int, sample: int = SAMPLE) -> Tensor:
    """A (D, rank) float64 matrix of singular values at most 1, along the directions of most variance.

    They are those of at most ``sample`` of the rows, and of 4,096.
    """
    sample = min(sample, SAMPLE)
    chosen = chosen[:: max(1, len(chosen) // sample)][:sample]
    centred = torch.cat([frame.centred(part).to(torch.float32) for part in chosen.split(frame.rows.step)])
    centred -= centred.mean(0)
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randn(frame.width, rank, generator=generator, dtype=torch.float32, device="cpu").to(centred.device)
    basis = torch.linalg.qr(start).Q
    for _ in range(3):  # subspace iteration
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    order = (centred @ basis).square().sum(0).argsort(descending=True)
    return at_most_one(basis[:, order].to(torch.float64))


def at_most_one(basis: Tensor) -> Tensor:
    """The basis divided by a bound of its largest singular value, which is near 1 for an orthonormal one.

    >>> bool(torch.linalg.matrix_norm(at_most_one(torch.ones(3, 2, dtype=torch.float64)), ord=2) <= 1)
    True
    """
    depth, rank = basis.shape
    basis = torch.linalg.qr(basis).Q if depth >= rank else basis
    defect = basis.T @ basis - torch.eye(rank, dtype=basis.dtype, device=basis.device)
    largest = 1 + float(defect.norm()) + depth * rank * 2.0**-52
    return basis / (math.sqrt(largest) * (1 + 2.0**-40))
