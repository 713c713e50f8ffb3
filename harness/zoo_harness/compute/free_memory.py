"""Measure the memory that this process can still allocate, on the host and on a CUDA device."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Return the bytes that are available without swapping, within the limits of the machine and of its container."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return min([int(memory["MemAvailable"].split()[0]) * 2**10, *_left_in_control_groups()])


def free_device_memory(device: torch.device) -> int:
    """Return the available bytes on a CUDA device, including memory that torch has reserved but does not use."""
    import torch

    free, _total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _left_in_control_groups() -> list[int]:
    """Return the bytes left below each memory limit of this process (cgroup v2); cached file pages count as free."""
    left = []
    for group in _groups():
        with suppress(OSError):
            limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            if limit != "max":
                left.append(max(0, int(limit) - used + int(counts.get("inactive_file", 0))))
    return left


def _groups() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    group = _CONTROL_GROUPS / own
    return [group, *(parent for parent in group.parents if parent.is_relative_to(_CONTROL_GROUPS))]
