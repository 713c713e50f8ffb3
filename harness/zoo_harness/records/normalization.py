"""The mean and standard deviation that a run normalises images by, as its options choose them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zoo.errors import UsageError

Channels = tuple[float, float, float]
NormalizationSource = Literal["weights", "dataset", "given"]


@dataclass(frozen=True)
class Normalization:
    """The source of mean and standard deviation: the ``weights``, the training images (``dataset``), or as ``given``.

    ``mean`` and ``std`` are those of red, green and blue, of values in [0, 1]; ``None`` unless they were given.
    """

    source: NormalizationSource = "weights"
    mean: Channels | None = None
    std: Channels | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Normalization:
        """Take the normalization out of options, which may lack it; raise :class:`~zoo.errors.UsageError` if wrong.

        >>> Normalization.of({"mean": "0.5,0.5,0.5", "std": [0.25, 0.25, 0.25], "normalization": "weights"}).source
        'given'
        >>> Normalization.of({"seed": 1}).source
        'weights'
        """
        mean, std, source = values.get("mean"), values.get("std"), values.get("normalization", "weights")
        if mean is None and std is None:
            return cls(source)
        if mean is None or std is None:
            given, missing = ("std", "mean") if mean is None else ("mean", "std")
            message = f"--{given} is given without --{missing}; give both, or --normalization dataset"
            raise UsageError(message, code="option-missing", option=missing)
        if source == "dataset":
            message = (
                "--mean and --std exclude --normalization dataset, which computes them from the training images; give "
                "one of the two"
            )
            raise UsageError(message, code="option-conflict", options=("mean", "std", "normalization"))
        return cls("given", parse_channels("mean", mean), parse_channels("std", std))


OF_WEIGHTS = Normalization()


def parse_channels(option: Literal["mean", "std"], given: str | Sequence[float]) -> Channels:
    """Return the three numbers of ``--mean`` or ``--std``: a mean from 0 to 1, a standard deviation above 0 up to 1.

    >>> parse_channels("mean", "0.5071, 0.4865, 0.4409")
    (0.5071, 0.4865, 0.4409)
    """
    parts: Sequence[Any] = given.split(",") if isinstance(given, str) else given
    spelled = f"--{option} {given if isinstance(given, str) else ','.join(map(str, given))}"
    try:
        values = [float(part) for part in parts]
    except ValueError as error:
        message = f"{spelled} is wrong: expected three numbers, such as 0.5,0.5,0.5"
        raise UsageError(message, code="option-value", option=option, given=given) from error
    if len(values) != 3:
        message = f"{spelled} has {len(values)} number(s); expected 3, for red, green and blue"
        raise UsageError(message, code="channel-count", option=option, given=len(values))
    for value in values:
        if not math.isfinite(value) or not 0 <= value <= 1 or (option == "std" and value == 0):
            allowed = "from 0 to 1" if option == "mean" else "above 0, at most 1"
            advice = "; divide by 255, because pixel values are in [0, 1]" if 1 < value <= 255 else ""
            message = f"{spelled}: {value:g} is out of range; expected numbers {allowed}{advice}"
            raise UsageError(message, code="option-range", option=option, given=value)
    red, green, blue = values
    return red, green, blue
