"""Compute short vectors of rows, and error bounds, such that distances of the vectors bound true distances from below.

For any two rows, true distance >= |w_i - w_j| - h_i - h_j. docs/exact-neighbours.md has the proof.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_harness.separation.knn.exact_distances import Rows, by_parts

UNDERFLOW = 2.0**-505  # no float64 square that matters is lost above it


class Frame:
    """Coordinates u = s (x - m) of rows x: m is a median, s a power of two, each coordinate of u at most 1.

    ``chosen``: indices of the rows that are searched.
    """

    def __init__(self, rows: Rows, chosen: Tensor) -> None:
        self.rows = rows
        parts = chosen.split(rows.step)
        # The median of a sample: enough against a common offset, and an outlier hardly moves it.
        sample = chosen[:: max(1, len(chosen) // rows.step)][: rows.step]
        median = rows.exact(sample).median(0).values
        largest = float(torch.stack([(rows.exact(part) - median).abs().amax() for part in parts]).amax())
        # At least 300: a larger scale would raise the underflow of the exact squares above our bound on underflow.
        self.exponent = max(math.frexp(largest)[1], 300)
        self._shift = median * -math.ldexp(1.0, -self.exponent)
        self._factor = math.ldexp(1.0, rows.exponent - self.exponent)

    @property
    def width(self) -> int:
        """The number of features, D."""
        return self.rows.features.shape[1]

    def centred(self, index: Tensor, columns: slice = slice(None)) -> Tensor:
        """Return the coordinates u of these rows, (len(index), D) float64, or some columns of them."""
        given = self.rows.features[:, columns][index].to(torch.float64)
        return torch.add(self._shift[columns], given, alpha=self._factor)

    def scaled(self, squared: Tensor) -> Tensor:
        """Return squared distances of :class:`Rows` in the units of u."""
        scale = math.ldexp(1.0, -self.exponent)
        return squared * scale * scale


class ProjectedRows:
    """The vectors w of some rows, each with a bound h of its error.

    ``basis``: (D, P) float64, non-expansive: w is the projection of u and the length of the remainder, P + 1 numbers.
    With ``basis`` ``None``, w is u itself. ``keep``: store the vectors instead of computing them at each use.

    ``vectors``: (G, width), or ``None`` if not kept. ``error``: (G,) float64, h. ``norms``: (G,) float64, |w|^2.
    """

    def __init__(self, frame: Frame, chosen: Tensor, basis: Tensor | None, dtype: torch.dtype, *, keep: bool) -> None:
        self._frame, self._chosen, self._basis, self.dtype = frame, chosen, basis, dtype
        self.width = frame.width if basis is None else basis.shape[1] + 1
        self.error = torch.empty(len(chosen), dtype=torch.float64, device=chosen.device)
        self.norms = torch.empty_like(self.error)
        self.vectors = torch.empty(len(chosen), self.width, dtype=dtype, device=chosen.device) if keep else None
        step = frame.rows.step
        for rows in (slice(start, start + step) for start in range(0, len(chosen), step)):
            projected, earlier = self._projected(chosen[rows])
            rounded = projected.to(dtype)
            if self.vectors is not None:
                self.vectors[rows] = rounded
            back = rounded.to(torch.float64)
            moved = (projected - back).square_().sum(1).sqrt_()
            self.norms[rows] = back.square_().sum(1)
            self.error[rows] = (moved + earlier) * (1 + 2.0**-30) + UNDERFLOW

    def of(self, rows: slice) -> Tensor:
        """Return the vectors w of these rows."""
        if self.vectors is not None:
            return self.vectors[rows]
        part = self._chosen[rows]
        result = torch.empty(len(part), self.width, dtype=self.dtype, device=part.device)
        return by_parts(lambda index: self._projected(index)[0], self._frame.rows.step, result, part)

    @property
    def in_pieces(self) -> bool:
        """Whether these are whole rows that are not kept: then :meth:`piece` gives a few columns at a time."""
        return self.vectors is None and self._basis is None

    def piece(self, rows: slice, columns: slice) -> Tensor:
        """Return some columns of the vectors w of these rows."""
        return self._frame.centred(self._chosen[rows], columns).to(self.dtype)

    def _projected(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(u) in float64, and a bound of its error."""
        centred = self._frame.centred(index)
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
