"""Checks that the author of a plugin runs in their own tests."""

from zoo_harness.testing import check_backbone

__all__ = ["check_backbone"]
