"""Checks that plugin authors call in the tests of their plugins."""

from zoo_harness.testing import check_backbone

__all__ = ["check_backbone"]
