"""Saves the state of training after an epoch, so that a resumed run continues as if it had not been interrupted.

The order of the images, dropout and augmentation depend on the seed and the epoch alone, and the learning rate on the
step alone. Besides its settings a run needs only the tensors that training changes, those of the optimizer, and the
history. They are written after every epoch, all or nothing; frozen tensors are not written again. Each file has the
identity of its run and a checksum, and the file of the epoch before stays, in case the newest is damaged.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import write_tensors
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.run import EpochRecord, Record, best_epoch
from zoo_harness.util.safe_files import open_regular

STATE = "training_state.safetensors"
PREVIOUS = "training_state.previous.safetensors"
_HISTORY, _RUN, _CHECKSUM = (
    "training",
    "run",
    "checksum",
)  # keys of the file's metadata; earlier versions wrote the first
_LARGEST_HEADER = 2**27  # bytes; safetensors itself allows 100 MB
_MOST_COPIES = 8  # of the tensors that training changes, in one file: their values, the best ones, the optimizer's
_OTHER_RUN = "the file is of another run; start again in a new folder"


class TrainingProgress(Record):
    """Hold the finished epochs of a run, in order."""

    history: tuple[EpochRecord, ...] = ()

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def best(self) -> EpochRecord | None:
        """The first epoch of the highest accuracy on the evaluation split."""
        return best_epoch(self.history)


@dataclass(frozen=True)
class StoredState:
    """The undamaged content of a state file; ``run`` is ``None`` if an earlier version wrote it."""

    path: Path
    progress: TrainingProgress
    tensors: dict[str, Tensor]
    run: str | None


@dataclass
class TrainingState:
    """Hold a network, its optimizer, and a copy of the tensors that training changes, from the best epoch.

    ``run`` is the identity of the run: a state file with another one is refused.
    """

    tuned: TunedNetwork
    optimizer: torch.optim.Optimizer
    progress: TrainingProgress
    best: dict[str, Tensor]
    run: str = ""
    _newest_is_whole: bool = field(default=False, init=False)  # whether STATE may replace PREVIOUS

    def end_epoch(self, epoch: EpochRecord, *, keep_best: bool) -> None:
        """Add an epoch, and copy its weights if it is the best so far."""
        self.progress = TrainingProgress(history=(*self.progress.history, epoch))
        if keep_best and self.progress.best is epoch:
            self.best = {name: tensor.clone() for name, tensor in mutable_tensors(self.tuned).items()}

    def restore_best_weights(self) -> None:
        """Copy the weights of the best epoch, if there are any, back into the network."""
        _copy(self.best, mutable_tensors(self.tuned))

    def replace_weights(self, tensors: dict[str, Tensor]) -> None:
        """Copy tensors that :func:`changing_tensors` returned back into the network."""
        _copy(tensors, self.tuned.network.state_dict())

    def save(self, directory: Path) -> None:
        """Write the state into a run directory, all or nothing; the one that was there becomes the previous one."""
        named = {f"network.{name}": tensor for name, tensor in mutable_tensors(self.tuned).items()}
        named |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (named | self._of_optimizer()).items()}
        history = self.progress.model_dump_json()
        metadata = {_HISTORY: history, _RUN: self.run, _CHECKSUM: _checksum(tensors, history, self.run)}
        keep = directory / PREVIOUS if self._newest_is_whole else None
        write_tensors(directory / STATE, tensors, metadata, keep=keep)
        self._newest_is_whole = True

    def load(self, directory: Path) -> list[str]:
        """Restore the state that :meth:`find` finds, and return warnings of what could not be checked or read."""
        found = self.find(directory)
        if found is None:
            return []
        expected, best = mutable_tensors(self.tuned), _under("best.", found.tensors)
        self.optimizer.load_state_dict(self._restored(found))
        _copy(_under("network.", found.tensors), expected)
        self.best = {name: tensor.to(expected[name].device) for name, tensor in best.items()}
        self.progress, newest = found.progress, directory / STATE
        self._newest_is_whole = found.path == newest
        warnings = []
        if not self._newest_is_whole and newest.exists():
            warnings.append(
                f"{newest} is damaged; training continues from {PREVIOUS}, after epoch {found.progress.epoch}"
            )
        if found.run is None:
            warnings.append(
                f"{found.path} has no identity: an earlier version wrote it; not checked: whose state it is"
            )
        return warnings

    def find(self, directory: Path) -> StoredState | None:
        """Read the newest undamaged state in a directory; ``None`` if the run has not finished an epoch.

        Raises :class:`~zoo.errors.WeightsError` if all are damaged, or if one is of another run or network, and
        :class:`~zoo.errors.ZooError` for a link or a device.
        """
        expected, damage = mutable_tensors(self.tuned), None
        most = _LARGEST_HEADER + _MOST_COPIES * sum(tensor.nbytes for tensor in expected.values())
        for path in (directory / STATE, directory / PREVIOUS):
            try:
                found = _read(path, most)
            except FileNotFoundError:
                continue
            except WeightsError as error:
                damage = damage or error
                continue
            if found.run not in (None, self.run):
                message = f"{path} has another identity than the run in this folder; {_OTHER_RUN}"
                raise WeightsError(message, code="state-of-another-run", path=path)
            network = _under("network.", found.tensors)
            _check(network, expected, path)
            _check(_under("best.", found.tensors) or network, expected, path)
            self._restored(found)
            return found
        if damage is not None:
            raise damage
        return None

    def _of_optimizer(self) -> dict[str, Tensor]:
        names = list(self.tuned.trained_parameters())
        state: dict[int, dict[str, Any]] = self.optimizer.state_dict()["state"]
        return {
            f"optimizer.{names[index]}.{key}": torch.as_tensor(value)
            for index, values in state.items()
            for key, value in values.items()
            if value is not None
        }

    def _restored(self, found: StoredState) -> dict[str, Any]:
        parameters = self.tuned.trained_parameters()
        names = list(parameters)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", found.tensors).items():
            parameter, _, key = name.rpartition(".")
            if parameter not in parameters or tensor.shape not in ((), parameters[parameter].shape):
                message = f"{found.path}: optimizer tensor {name!r:.80} is of no trained parameter; {_OTHER_RUN}"
                raise WeightsError(message, code="state-of-another-run", path=found.path, name=name)
            state.setdefault(names.index(parameter), {})[key] = tensor
        return {**self.optimizer.state_dict(), "state": state}


def mutable_tensors(tuned: TunedNetwork) -> dict[str, Tensor]:
    """Return the tensors that training changes, by name: trained parameters, and buffers of modules that train.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    >>> tuned = TunedNetwork(network, ("1",), ("1",), {"": True, "0": False, "1": True})
    >>> _ = network[0].requires_grad_(False)
    >>> list(mutable_tensors(tuned))
    ['1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked']
    """
    everything = tuned.network.state_dict()
    trained: dict[str, Tensor] = {name: value.detach() for name, value in tuned.trained_parameters().items()}
    buffers = {
        name: value
        for name, value in tuned.network.named_buffers()
        if name in everything and tuned.modes[name.rpartition(".")[0]]
    }
    return trained | buffers


def changing_tensors(tuned: TunedNetwork) -> dict[str, Tensor]:
    """Return the part of the network's state dict that training changes; shared tensors under each of their names.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))
    >>> network[1].weight = network[0].weight
    >>> list(changing_tensors(TunedNetwork(network, ("1",), ("1",), {"": True, "0": True, "1": True})))
    ['0.weight', '0.bias', '1.weight']
    """
    memory = {tensor.untyped_storage().data_ptr() for tensor in mutable_tensors(tuned).values()}
    state = tuned.network.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.untyped_storage().data_ptr() in memory}


def _read(path: Path, most: int) -> StoredState:
    """Read a state file of at most ``most`` bytes; raise ``state-damaged`` if it is not as it was written."""
    from safetensors import SafetensorError, safe_open

    with open_regular(path, most):  # it raises for a link, a pipe or a device
        pass
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if metadata.keys() not in ({_HISTORY}, {_HISTORY, _RUN, _CHECKSUM}):
            raise ValueError(f"its metadata has the keys {sorted(metadata)!r:.100}")
        run = metadata.get(_RUN)
        if run is not None and metadata[_CHECKSUM] != _checksum(tensors, metadata[_HISTORY], run):
            raise ValueError("its content has another checksum than when it was written")
        progress = TrainingProgress.model_validate_json(metadata[_HISTORY], strict=True)
    except (SafetensorError, OSError, ValueError) as error:  # pydantic's is a ValueError too
        message = f"{path} cannot be read: {str(error).splitlines()[0]:.200}; start again in a new folder"
        raise WeightsError(message, code="state-damaged", path=path) from error
    return StoredState(path, progress, tensors, run)


def _checksum(tensors: dict[str, Tensor], history: str, run: str) -> str:
    """Return a digest of everything in a state file; of tensors by their CRC-32, which is fast and finds any damage."""
    values = [
        f"{name} {tensor.dtype} {tuple(tensor.shape)} {zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)}"
        for name, tensor in sorted(tensors.items())
    ]
    return hashlib.sha256("\0".join([*values, history, run]).encode()).hexdigest()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _check(found: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    for name in {**expected, **found}:
        kinds = [
            f"{tensors[name].dtype} {tuple(tensors[name].shape)}" if name in tensors else "not there"
            for tensors in (found, expected)
        ]
        if kinds[0] != kinds[1]:
            message = f"{path}: tensor {name!r} is {kinds[0]}; expected {kinds[1]}; {_OTHER_RUN}"
            raise WeightsError(message, code="state-of-another-run", path=path, name=name)


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)
