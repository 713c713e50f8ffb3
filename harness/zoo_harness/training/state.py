"""Save the training state after each epoch, so that a resumed run continues as if it had not been interrupted.

Dropout, augmentation and the order of the images depend only on the seed and the epoch. The learning rate depends only
on the step number. Therefore a state file holds only the tensors that training changes, the tensors of the optimizer,
and the history of epochs. Frozen tensors are not saved. A state file is written under a temporary name first, so that
the final file is never incomplete. Each file contains a checksum, and a digest that identifies the run. The file of the
previous epoch is kept in case the newest file is damaged.
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
)  # keys of the file's metadata; earlier versions of zoo wrote only the first key
_LARGEST_HEADER = 2**27  # bytes; the safetensors library allows 100 MB
# A file holds the current values of the changing tensors, the values of the best epoch, and the optimizer's tensors.
# All these tensors together are smaller than this multiple of the changing tensors.
_MOST_COPIES = 8
_OTHER_RUN = "the file belongs to another run; start again in a new folder"


class TrainingProgress(Record):
    """The records of a run's finished epochs, in order."""

    history: tuple[EpochRecord, ...] = ()

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def best(self) -> EpochRecord | None:
        """The epoch with the highest accuracy on the evaluation split; if epochs are equally good, the first one."""
        return best_epoch(self.history)


@dataclass(frozen=True)
class StoredState:
    """The content of an undamaged training state file.

    ``run``: the digest that identifies the run; ``None`` if an earlier version of zoo wrote the file.
    """

    path: Path
    progress: TrainingProgress
    tensors: dict[str, Tensor]
    run: str | None


@dataclass
class TrainingState:
    """The state of training: the network, its optimizer, the finished epochs, and the weights of the best epoch.

    ``best``: a copy of all tensors that training changes, made after the best epoch. ``run``: the digest that
    identifies the run; a state file with a different digest is rejected.
    """

    tuned: TunedNetwork
    optimizer: torch.optim.Optimizer
    progress: TrainingProgress
    best: dict[str, Tensor]
    run: str = ""
    _newest_is_whole: bool = field(default=False, init=False)  # whether the file STATE is undamaged

    def end_epoch(self, epoch: EpochRecord, *, keep_best: bool) -> None:
        """Add the record of a finished epoch.

        If ``keep_best`` is true and the epoch is the best so far, copy the weights.
        """
        self.progress = TrainingProgress(history=(*self.progress.history, epoch))
        if keep_best and self.progress.best is epoch:
            self.best = {name: tensor.clone() for name, tensor in mutable_tensors(self.tuned).items()}

    def restore_best_weights(self) -> None:
        """Copy the saved weights of the best epoch into the network. If no weights were saved, do nothing."""
        _copy(self.best, mutable_tensors(self.tuned))

    def replace_weights(self, tensors: dict[str, Tensor]) -> None:
        """Copy the given tensors into the network. ``tensors``: a result of :func:`changing_tensors`."""
        _copy(tensors, self.tuned.network.state_dict())

    def save(self, directory: Path) -> None:
        """Write the state into a file in the run directory, and keep the file of the previous epoch under another name.

        If writing fails, the directory keeps the earlier files.
        """
        named = {f"network.{name}": tensor for name, tensor in mutable_tensors(self.tuned).items()}
        named |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in (named | self._of_optimizer()).items()}
        history = self.progress.model_dump_json()
        metadata = {_HISTORY: history, _RUN: self.run, _CHECKSUM: _checksum(tensors, history, self.run)}
        keep = directory / PREVIOUS if self._newest_is_whole else None
        write_tensors(directory / STATE, tensors, metadata, keep=keep)
        self._newest_is_whole = True

    def load(self, directory: Path) -> list[str]:
        """Restore the state from the newest undamaged file; return warnings about damaged files and omitted checks."""
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
                f"{newest} is damaged; training continues after epoch {found.progress.epoch} from {PREVIOUS}"
            )
        if found.run is None:
            warnings.append(
                f"cannot check that {found.path} belongs to this run: it has no identity, because an earlier version "
                "of zoo wrote the file"
            )
        return warnings

    def find(self, directory: Path) -> StoredState | None:
        """Read the newest undamaged state file in a directory; return ``None`` if there is no state file.

        Raises :class:`~zoo.errors.WeightsError` if all state files are damaged, or if a state file belongs to another
        run or network. Raises :class:`~zoo.errors.ZooError` if a state file is a symbolic link or a device.
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
                message = f"the identity in {path} is not the identity of the run in this folder; {_OTHER_RUN}"
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
                message = f"{found.path}: optimizer tensor {name!r:.80} matches no trained parameter; {_OTHER_RUN}"
                raise WeightsError(message, code="state-of-another-run", path=found.path, name=name)
            state.setdefault(names.index(parameter), {})[key] = tensor
        return {**self.optimizer.state_dict(), "state": state}


def mutable_tensors(tuned: TunedNetwork) -> dict[str, Tensor]:
    """Return named tensors that training changes: trained parameters, and buffers of modules in training mode.

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
    """Return the part of the network's state dict that training changes; a shared tensor appears under all its names.

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))
    >>> network[1].weight = network[0].weight
    >>> list(changing_tensors(TunedNetwork(network, ("1",), ("1",), {"": True, "0": True, "1": True})))
    ['0.weight', '0.bias', '1.weight']
    """
    memory = {tensor.untyped_storage().data_ptr() for tensor in mutable_tensors(tuned).values()}
    state = tuned.network.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.untyped_storage().data_ptr() in memory}


def _read(path: Path, most: int) -> StoredState:
    """Read a training state file of at most ``most`` bytes, and verify its checksum.

    Raises :class:`~zoo.errors.WeightsError` with the code ``state-damaged`` if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    with open_regular(path, most):  # raises an error if the path is a link, a pipe or a device
        pass
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - file is not a mapping
        if metadata.keys() not in ({_HISTORY}, {_HISTORY, _RUN, _CHECKSUM}):
            raise ValueError(f"the metadata has unexpected keys: {sorted(metadata)!r:.100}")
        run = metadata.get(_RUN)
        if run is not None and metadata[_CHECKSUM] != _checksum(tensors, metadata[_HISTORY], run):
            raise ValueError("the checksum does not match the content")
        progress = TrainingProgress.model_validate_json(metadata[_HISTORY], strict=True)
    except (SafetensorError, OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        message = f"{path} cannot be read: {str(error).splitlines()[0]:.200}; start again in a new folder"
        raise WeightsError(message, code="state-damaged", path=path) from error
    return StoredState(path, progress, tensors, run)


def _checksum(tensors: dict[str, Tensor], history: str, run: str) -> str:
    """Return a digest of the content of a state file. Tensors are digested by their CRC-32, because CRC-32 is fast."""
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
            f"{tensors[name].dtype} {tuple(tensors[name].shape)}" if name in tensors else "missing"
            for tensors in (found, expected)
        ]
        if kinds[0] != kinds[1]:
            message = f"{path}: tensor {name!r} is {kinds[0]}; expected {kinds[1]}; {_OTHER_RUN}"
            raise WeightsError(message, code="state-of-another-run", path=path, name=name)


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)
