"""Free host memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_harness.compute import free_memory


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "slice"
    group.mkdir()
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 400\n")
    monkeypatch.setattr(free_memory, "_groups", lambda: [tmp_path, group])
    assert free_memory.free_host_memory() == 500
    (group / "memory.max").write_text("max\n")
    assert free_memory.free_host_memory() > 2**20
