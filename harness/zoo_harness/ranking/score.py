"""The result of one ranking score for one backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class RankScore:
    """A score's value and the details of its computation; ``value`` is ``None`` if there is a ``reason`` for it.

    ``hits``: (N,) bool, whether each image was classified correctly, for scores that are a share of hits.
    """

    value: float | None
    details: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    hits: Any = None

    @classmethod
    def blank(cls, reason: str) -> RankScore:
        """Return a score without a value.

        >>> RankScore.blank("no source classifier").reason
        'no source classifier'
        """
        return cls(None, reason=reason)
