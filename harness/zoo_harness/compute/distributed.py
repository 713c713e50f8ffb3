"""Several processes that train one network together, as ``torchrun`` starts them, one for each GPU.

Each holds the whole network and takes its share of the images; gradients and counts are summed over all, so that the
result is that of one process to rounding. The first one, which leads, does all the writing and talking.

Nothing here imports torch before there is more than one process, so that an error that is told at once can ask who
tells it.
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

# While the first one scores, the others wait. torchrun ends them all when one is lost, so there is no need to hurry.
_LONGEST_WAIT = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """All processes of a run as one of them sees them: its ``rank`` from 0 on, and how many there are.

    ``local_rank`` and ``local_count`` are the same among those on this machine.

    >>> Processes(rank=1, count=3).share(8)
    range(2, 5)
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """What ``torchrun`` says in the environment; one process where it says nothing.

        Raises :class:`~zoo.errors.UsageError` for what cannot be.
        """
        names = {"rank": "RANK", "count": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_count": "LOCAL_WORLD_SIZE"}
        given = {field: os.environ[name] for field, name in names.items() if name in os.environ}
        if given.keys() != names.keys():  # something else of these names
            return cls()
        if not all(value.isdecimal() for value in given.values()):
            raise UsageError(
                f"the environment of torchrun has {given}, which are no whole numbers; start with torchrun"
            )
        return cls(**{field: int(value) for field, value in given.items()})

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and talks."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there is more than one."""
        return self.count > 1

    def share(self, items: int) -> range:
        """Which of so many items are this process's: consecutive ones, about as many as everybody's."""
        return range(items * self.rank // self.count, items * (self.rank + 1) // self.count)

    def add(self, *tensors: Tensor) -> None:
        """Put the sum over all processes into each tensor, in all of them."""
        if not self.is_distributed:
            return
        import torch.distributed

        for tensor in tensors:
            torch.distributed.all_reduce(tensor)

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum the gradients of parameters over all processes, in one piece."""
        if not self.is_distributed:
            return
        import torch

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(together)
        for gradient, part in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of all processes, one's after the other's, on the CPU of the first; others keep theirs."""
        if not self.is_distributed:
            return rows
        import torch

        lengths = torch.zeros(self.count, dtype=torch.int64)
        lengths[self.rank] = len(rows)
        torch.distributed.all_reduce(lengths)
        padded = torch.zeros(int(lengths.max()), *rows.shape[1:], dtype=rows.dtype)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.count)] if self.is_main else None
        torch.distributed.gather(padded, parts)
        if parts is None:
            return rows
        return torch.cat([part[:length] for part, length in zip(parts, lengths.tolist(), strict=True)])

    def broadcast(self, value: T) -> T:
        """What the first one says, in all of them; values that pickle."""
        if not self.is_distributed:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]

    def sum(self, number: int) -> int:
        """The sum of everybody's number, in all of them."""
        if not self.is_distributed:
            return number
        import torch

        total = torch.tensor(number, dtype=torch.int64)
        torch.distributed.all_reduce(total)
        return int(total)

    def any(self, true: bool) -> bool:
        """Whether it is so in one of them at least."""
        return self.sum(int(true)) > 0


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes of this run, connected while the body runs.

    Raises :class:`~zoo.errors.UsageError` where they cannot be.
    """
    processes = Processes.launched()
    if not processes.is_distributed:
        yield processes
        return
    import torch

    if not torch.distributed.is_available():
        raise UsageError("this build of torch cannot connect processes (torch.distributed); start without torchrun")
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= processes.local_count
    if on_gpu:
        torch.cuda.set_device(processes.local_rank)  # or each would also open the first one
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    torch.distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield processes
    finally:
        torch.distributed.destroy_process_group()
