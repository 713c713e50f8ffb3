"""The protocol through which long tasks report their progress."""

from __future__ import annotations

from typing import Any, Protocol


class Progress(Protocol):
    """Receives progress: ``stage`` begins a part of the work, ``advance`` counts images that are finished."""

    def stage(self, name: str, images: int) -> None:
        """Begin a part of the work called ``name``, in which ``images`` images are processed."""

    def advance(self, images: int) -> None:
        """Add a number of images to the count of finished images."""


class Silence:
    """A receiver that ignores all progress and all other messages of a :class:`~zoo.Reporter`."""

    def _ignore(self, *_given: Any, **_named: Any) -> None:
        pass

    stage = advance = log = warn = on_epoch = _ignore
