"""The protocol that long tasks report their progress to."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What is told of a long task: ``stage`` begins a part of so many images, ``advance`` counts them."""

    def stage(self, name: str, images: int) -> None:
        """Begin a part."""

    def advance(self, images: int) -> None:
        """Count images that are done."""


class Silence:
    """Progress that nobody watches."""

    def stage(self, name: str, images: int) -> None:
        """Do nothing."""

    def advance(self, images: int) -> None:
        """Do nothing."""
