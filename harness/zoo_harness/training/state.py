"""Saves the state of training after an epoch, so that a resumed run continues as if it had not been interrupted.

The order of the images, dropout and augmentation depend on the seed and the epoch alone, and the learning rate on the
step alone. Besides its settings a run needs only the tensors that training changes, those of the optimizer, and the
history. They are written after every epoch, all or nothing; frozen tensors are not written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import write_tensors
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.run import EpochRecord, Record

STATE = "training_state.safetensors"
_NOTE = "training"
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
        return max(self.history, key=lambda line: line.evaluation_accuracy, default=None)


@dataclass
class TrainingState:
    """Hold a network, its optimizer, and a copy of the tensors that training changes, from the best epoch."""

    tuned: TunedNetwork
    optimizer: torch.optim.Optimizer
    progress: TrainingProgress
    best: dict[str, Tensor]

    def end_epoch(self, epoch: EpochRecord, *, keep_best: bool) -> None:
        """Add an epoch, and copy its weights if it is the best so far."""
        self.progress = TrainingProgress(history=(*self.progress.history, epoch))
        if keep_best and self.progress.best is epoch:
            self.best = {name: tensor.clone() for name, tensor in mutable_tensors(self.tuned).items()}

    def restore_best_weights(self) -> None:
        """Copy the weights of the best epoch, if there are any, back into the network."""
        _copy(self.best, mutable_tensors(self.tuned))

    def save(self, directory: Path) -> None:
        """Write the state into a run directory, all or nothing."""
        tensors = {f"network.{name}": tensor for name, tensor in mutable_tensors(self.tuned).items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= self._of_optimizer()
        write_tensors(directory / STATE, tensors, {_NOTE: self.progress.model_dump_json()})

    def load(self, directory: Path) -> None:
        """Restore the state of the run in a directory; do nothing if it has not finished an epoch.

        Raises :class:`~zoo.errors.WeightsError` for a file that is damaged or of another network.
        """
        path = directory / STATE
        if not path.is_file():
            return
        progress, tensors = _read(path)
        expected = mutable_tensors(self.tuned)
        network, best = _under("network.", tensors), _under("best.", tensors)
        _check(network, expected, path)
        _check(best or network, expected, path)
        self.optimizer.load_state_dict(self._restored(_under("optimizer.", tensors), path))
        _copy(network, expected)
        self.best = {name: tensor.to(expected[name].device) for name, tensor in best.items()}
        self.progress = progress

    def _of_optimizer(self) -> dict[str, Tensor]:
        names = list(self.tuned.trained_parameters())
        state: dict[int, dict[str, Any]] = self.optimizer.state_dict()["state"]
        return {
            f"optimizer.{names[index]}.{key}": torch.as_tensor(value)
            for index, values in state.items()
            for key, value in values.items()
            if value is not None
        }

    def _restored(self, tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
        names = list(self.tuned.trained_parameters())
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter, _, key = name.rpartition(".")
            if parameter not in names:
                message = f"{path}: optimizer tensor {name!r} is of no trained parameter; {_OTHER_RUN}"
                raise WeightsError(message, code="state-of-another-run", path=path, name=name)
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


def _read(path: Path) -> tuple[TrainingProgress, dict[str, Tensor]]:
    from pydantic import ValidationError
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            progress = TrainingProgress.model_validate_json((file.metadata() or {}).get(_NOTE, "{}"), strict=True)
            return progress, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValidationError) as error:
        message = f"{path} cannot be read: {str(error).splitlines()[0]}; start again in a new folder"
        raise WeightsError(message, code="state-damaged", path=path) from error


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
