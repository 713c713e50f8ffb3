"""Records of runs that earlier versions wrote are read, and say the same."""

from __future__ import annotations

import json
from pathlib import Path

from zoo_harness.records.run import read_run

EARLIER = Path(__file__).parents[1] / "golden" / "earlier"


def test_a_record_of_the_version_before_is_read_whole() -> None:
    """Every key of the file is in the record, with the same value."""
    record = json.loads(read_run(EARLIER).to_json())
    assert _missing(json.loads((EARLIER / "run.json").read_text()), record) == []


def _missing(old: object, new: object, where: str = "") -> list[str]:
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        return [fault for key, value in old.items() for fault in _missing(value, new.get(key), f"{where}.{key}")]
    if isinstance(old, list):
        assert isinstance(new, list), where
        pairs = zip(old, new, strict=True)
        return [fault for index, pair in enumerate(pairs) for fault in _missing(*pair, f"{where}[{index}]")]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]
