"""The choice of a place for cached outputs."""

from __future__ import annotations

import pytest

from zoo import UsageError
from zoo_harness.frozen.cache.placement import CachePolicy


@pytest.mark.parametrize(
    ("cache", "budget", "message"),
    [
        ("ram", None, "--cache 'ram'"),
        ("host", "much", "--cache-budget 'much'"),
        ("disk", "1GiB", "--cache-budget 1GiB limits memory, but --cache disk uses no memory"),
    ],
)
def test_invalid_options(cache: str, budget: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CachePolicy.of(cache, budget)


def test_an_invalid_limit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "lots")
    with pytest.raises(UsageError, match="ZOO_CACHE_LIMIT 'lots'"):
        CachePolicy()


def test_on_a_gpu_its_memory_comes_first() -> None:
    assert CachePolicy("auto").places("cuda") == ("device", "host", "disk")
    assert CachePolicy("device").places("cuda") == ("device",)
    assert CachePolicy("device").places("cpu") == ("host",)
    assert CachePolicy("off").places("cuda") == ()


def test_auto_takes_a_share_of_the_free_memory_and_a_named_place_all_of_it() -> None:
    auto = CachePolicy("auto")
    assert auto.memory_shortage_reason("device", 60, 100) is None
    assert auto.memory_shortage_reason("device", 70, 100) == "100 bytes free, of which the cache may use 60%"
    assert CachePolicy("auto", 80).memory_shortage_reason("device", 70, 100) is None
    assert CachePolicy("device").memory_shortage_reason("device", 70, 100) is None
    assert CachePolicy("host").for_each_of(2).memory_shortage_reason("host", 70, 100) is not None
