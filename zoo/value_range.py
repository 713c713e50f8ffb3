"""Choose the range of values that images of more than 8 bits per channel are scaled by, one for a whole dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from zoo.errors import DataError

_BITS = (8, 10, 12, 14, 16, 20, 24, 32)


@dataclass(frozen=True)
class ValueRange:
    """The values that become 0 and 255.

    >>> print(ValueRange(0, 4095))
    0 to 4,095
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:,g} to {self.high:,g}" if self.high < 10 else f"{self.low:,.0f} to {self.high:,.0f}"


FULL_16_BITS = ValueRange(0, 65535)


@dataclass(frozen=True)
class DeepValues:
    """The smallest and largest value of a deep image, whether they are whole numbers, and the range that tags state."""

    low: float
    high: float
    whole: bool
    stated: ValueRange | None = None

    @property
    def believed(self) -> ValueRange | None:
        """The stated range, unless a value is outside of it; PNG's sBIT counts bits before they were scaled up."""
        stated = self.stated
        return stated if stated and stated.low <= self.low and self.high <= stated.high else None

    @property
    def own_range(self) -> ValueRange:
        """The range of this image alone: the one that its tags state, else the smallest usual one that holds it.

        Usual are 0 to 1 for floating-point values, and 8, 10, 12, 14, 16, 20, 24 and 32 bits. Raises
        :class:`ValueError` for values that fit none of them.

        >>> print(DeepValues(3, 4000, whole=True).own_range)
        0 to 4,095
        """
        if self.believed:
            return self.believed
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            raise ValueError("it has values that are not finite")
        highs = [2**bits - 1 for bits in _BITS]
        fitting = [high for high in (highs if self.whole else [1, *highs]) if self.high <= high]
        if self.low < 0 or not fitting:
            raise ValueError(
                f"its values, {self.low:,g} to {self.high:,g}, have no known range; convert it to 8 or 16 bits, or "
                "give a TIFF the tags SMinSampleValue and SMaxSampleValue"
            )
        return ValueRange(0, fitting[0])


def common_range(found: Mapping[str, DeepValues]) -> ValueRange:
    """Return the range of several images by name: the smallest that holds the own range of each.

    Raises :class:`~zoo.errors.DataError` if some have whole and others floating-point numbers.

    >>> print(common_range({"a": DeepValues(0, 900, True), "b": DeepValues(0, 4000, True)}))
    0 to 4,095
    """
    kinds = {values.whole: name for name, values in found.items()}
    if len(kinds) > 1:
        raise DataError(
            f"images of whole and of floating-point numbers are mixed, such as {kinds[True]} and {kinds[False]}; "
            "expected one kind; convert all of them to 8 bits",
            code="image-ranges-mixed",
            images=[kinds[True], kinds[False]],
        )
    ranges = [values.own_range for values in found.values()]
    return ValueRange(min(each.low for each in ranges), max(each.high for each in ranges))
