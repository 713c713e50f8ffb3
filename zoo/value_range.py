"""Choose the value range from which all images of more than 8 bits in a dataset are scaled to 8 bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from zoo.errors import DataError

_BITS = (8, 10, 12, 14, 16, 20, 24, 32)


@dataclass(frozen=True)
class ValueRange:
    """The pixel values that become 0 (``low``) and 255 (``high``) when an image is scaled to 8 bits.

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
    """The smallest and largest pixel value of an image, whether its pixels are integers, and the range in its tags."""

    low: float
    high: float
    whole: bool
    stated: ValueRange | None = None

    @property
    def believed(self) -> ValueRange | None:
        """The range in the image's tags, or ``None`` if some pixel values are outside of this range.

        PNG's sBIT may count the significant bits of the values before the values were scaled.
        """
        stated = self.stated
        return stated if stated and stated.low <= self.low and self.high <= stated.high else None

    @property
    def own_range(self) -> ValueRange:
        """The range in the image's tags, or else the smallest standard range that contains its pixel values.

        The standard ranges are 0 to 1 for floating-point values, and 0 to 2^b - 1 for b = 8, 10, 12, 14, 16, 20, 24
        and 32 bits. Raises :class:`ValueError` if the values fit in no standard range.

        >>> print(DeepValues(3, 4000, whole=True).own_range)
        0 to 4,095
        """
        if self.believed:
            return self.believed
        if not math.isfinite(self.low) or not math.isfinite(self.high):
            raise ValueError("pixel values are not finite")
        highs = [2**bits - 1 for bits in _BITS]
        fitting = [high for high in (highs if self.whole else [1, *highs]) if self.high <= high]
        if self.low < 0 or not fitting:
            raise ValueError(
                f"pixel values from {self.low:,g} to {self.high:,g} have no known range; convert the image to 8 or 16 "
                "bits, or write the TIFF tags SMinSampleValue and SMaxSampleValue"
            )
        return ValueRange(0, fitting[0])


def common_range(found: Mapping[str, DeepValues]) -> ValueRange:
    """Return the smallest range that contains the range of every image; ``found`` maps image names to pixel values.

    Raises :class:`~zoo.errors.DataError` if some images hold integers and others hold floating-point values.

    >>> print(common_range({"a": DeepValues(0, 900, True), "b": DeepValues(0, 4000, True)}))
    0 to 4,095
    """
    kinds = {values.whole: name for name, values in found.items()}
    if len(kinds) > 1:
        raise DataError(
            f"images of integers and of floating-point values are mixed, such as {kinds[True]} and {kinds[False]}; "
            "expected one kind; convert all images to 8 bits",
            code="image-ranges-mixed",
            images=[kinds[True], kinds[False]],
        )
    ranges = [values.own_range for values in found.values()]
    return ValueRange(min(each.low for each in ranges), max(each.high for each in ranges))
