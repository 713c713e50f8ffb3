"""How much memory this process may still take, on the host and on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Bytes that can be had without swapping, by what the kernel says and the control group of a container allows."""
    return min([_available(), *_left_in_control_groups()])


def free_device_memory(device: torch.device) -> int:
    """Bytes that can be had on a CUDA device, those that torch holds and does not use included."""
    import torch

    free, _total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 2**10
    raise OSError("/proc/meminfo has no line MemAvailable")


def _left_in_control_groups() -> list[int]:
    """What each limit above this process leaves (cgroup v2); pages of files count as free, they can be dropped."""
    left = []
    for group in _groups():
        try:
            limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except OSError:
            continue
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
