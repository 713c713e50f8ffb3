"""The result of one ranking score for one backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class RankScore:
    """The value of a ranking score for one backbone, and details of its computation.

    ``value`` is ``None`` if the score cannot be computed; ``reason`` then says why. ``hits``, (N,) bool, says for each
    image whether it was classified correctly; only scores that are a share of images have ``hits``.
    """

    value: float | None
    details: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    hits: Any = None

    @classmethod
    def blank(cls, reason: str) -> RankScore:
        """Return a score without a value, with the reason why it cannot be computed.

        >>> RankScore.blank("no source classifier").reason
        'no source classifier'
        """
        return cls(None, reason=reason)
