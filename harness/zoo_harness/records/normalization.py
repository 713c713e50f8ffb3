"""Choose, from the options of a run, the mean and standard deviation by which images are normalised."""

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
    """Where mean and standard deviation come from: the ``weights``, the training images (``dataset``) or the user.

    If the user gave ``mean`` and ``std`` (source ``given``), they hold the values of red, green and blue for pixels in
    [0, 1]; otherwise they are ``None``.
    """

    source: NormalizationSource = "weights"
    mean: Channels | None = None
    std: Channels | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Normalization:
        """Read the normalization from a mapping of options; raise :class:`~zoo.errors.UsageError` for wrong values.

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
                "--mean and --std exclude --normalization dataset, which computes them from the training images; drop "
                "either --mean and --std or --normalization"
            )
            raise UsageError(message, code="option-conflict", options=("mean", "std", "normalization"))
        return cls("given", parse_channels("mean", mean), parse_channels("std", std))


OF_WEIGHTS = Normalization()


def parse_channels(option: Literal["mean", "std"], given: str | Sequence[float]) -> Channels:
    """Parse ``--mean`` (three numbers from 0 to 1) or ``--std`` (three numbers above 0, at most 1).

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
