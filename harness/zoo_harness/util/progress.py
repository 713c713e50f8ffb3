"""The protocol that long tasks report their progress to."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress: ``stage`` begins a part with a number of images, ``advance`` counts finished ones."""

    def stage(self, name: str, images: int) -> None:
        """Begin a part."""

    def advance(self, images: int) -> None:
        """Count finished images."""


class Silence:
    """Ignore all progress."""

    def stage(self, name: str, images: int) -> None:
        """Do nothing."""

    def advance(self, images: int) -> None:
        """Do nothing."""
