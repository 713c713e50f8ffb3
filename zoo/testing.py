"""Checks for plugin authors, who call them in the tests of their plugins."""

from zoo_harness.testing import check_backbone

__all__ = ["check_backbone"]
