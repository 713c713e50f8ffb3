"""Train one network in several processes; ``torchrun`` starts one process per GPU.

Every process holds the whole network and a share of the images. Gradients and counts are summed over the processes, so
several processes compute the same result as one process, up to rounding. Only the main process writes files and output.

This module imports torch only if there is more than one process, because error handling uses the module before torch is
imported.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from zoo.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


T = TypeVar("T")

# The other processes wait while the main process scores. A long limit is harmless, because torchrun ends all
# processes after a crash.
_LONGEST_WAIT = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """Hold the ``count`` of processes of a run, and the ``rank`` of this process among them, from 0.

    ``local_rank`` and ``local_count`` are the rank and the count of the processes on this machine.

    >>> Processes(rank=1, count=3).share(8)
    range(2, 5)
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """Read the environment variables that ``torchrun`` sets; without these variables there is one process.

        Raises :class:`~zoo.errors.UsageError` for values that are not integers.
        """
        names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
        given = {field: os.environ[name] for field, name in names.items() if name in os.environ}
        if given.keys() != names.keys():  # set by a program other than torchrun
            return cls()
        if not all(value.isdecimal() for value in given.values()):
            raise UsageError(
                f"environment of torchrun is wrong: {given}; expected whole numbers; start with torchrun",
                code="torchrun-environment",
                given=given,
            )
        return cls(**{field: int(value) for field, value in given.items()})

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which alone writes files and output."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.count > 1

    def share(self, items: int) -> range:
        """Return the indices of this process's share of ``items`` items; shares are contiguous and of similar size."""
        return range(items * self.rank // self.count, items * (self.rank + 1) // self.count)

    def add(self, *tensors: Tensor) -> None:
        """Replace each tensor, in every process, by its sum over all processes."""
        if not self.is_distributed:
            return
        import torch.distributed

        for tensor in tensors:
            torch.distributed.all_reduce(tensor)

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients of the parameters over all processes, in a single transfer."""
        if not self.is_distributed:
            return
        import torch

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.add(together)
        for gradient, part in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, rows: Tensor) -> Tensor:
        """On the main process, return the rows (N, ...) of all processes by rank; on others, return their own rows."""
        if not self.is_distributed:
            return rows
        import torch

        parts = [rows] * self.count if self.is_main else None
        torch.distributed.gather_object(rows, parts)
        return rows if parts is None else torch.cat(parts)

    def values(self, own: T) -> list[T]:
        """Return, in every process, the list of all processes' values; the values must be picklable."""
        if not self.is_distributed:
            return [own]
        import torch

        values = [own] * self.count
        torch.distributed.all_gather_object(values, own)
        return values

    def broadcast(self, value: T) -> T:
        """Return the main process's value in every process; the value must be picklable."""
        return self.values(value)[0]

    def sum(self, number: int) -> int:
        """Return, in every process, the sum of a number over all processes."""
        return sum(self.values(number))

    def any(self, true: bool) -> bool:
        """Return whether at least one process passes true."""
        return any(self.values(true))


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Connect the processes of this run while the ``with`` block runs.

    Raises :class:`~zoo.errors.UsageError` if this build of torch lacks ``torch.distributed``.
    """
    processes = Processes.launched()
    if not processes.is_distributed:
        yield processes
        return
    import torch

    if not torch.distributed.is_available():
        raise UsageError(
            "this build of torch cannot connect processes (torch.distributed); start without torchrun",
            code="torch-not-distributed",
        )
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= processes.local_count
    if on_gpu:
        torch.cuda.set_device(processes.local_rank)  # otherwise every process would also use the first GPU
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_LONGEST_WAIT)
    try:
        yield processes
    finally:
        torch.distributed.destroy_process_group()
