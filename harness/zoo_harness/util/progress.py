"""The protocol that long tasks report their progress to."""

from __future__ import annotations

from typing import Any, Protocol


class Progress(Protocol):
    """Receiver of progress: ``stage`` begins a part with a number of images, ``advance`` counts finished ones."""

    def stage(self, name: str, images: int) -> None:
        """Begin a part."""

    def advance(self, images: int) -> None:
        """Count finished images."""


class Silence:
    """Ignore all progress, and everything else that a :class:`~zoo.Reporter` receives."""

    def _ignore(self, *_given: Any, **_named: Any) -> None:
        pass

    stage = advance = log = warn = on_epoch = _ignore
