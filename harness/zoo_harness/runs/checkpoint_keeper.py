"""Keep the weights of chosen epochs beside the main checkpoint of a run, and score them when it ends.

A file is written before the state of its epoch. So a kill never leaves a state without it: the epoch is trained again,
to the same bits, and the file is replaced. A resumed run also writes the file of its last epoch again, because a kill
may have come before its digest was recorded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from zoo.backbone import Training
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.records.file_names import CHECKPOINTS
from zoo_harness.records.run import KeptCheckpoint
from zoo_harness.runs.reporter import Reporter
from zoo_harness.runs.writer import RunWriter
from zoo_harness.training.state import TrainingState, changing_tensors
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.digests import sha256_of


@dataclass
class CheckpointKeeper:
    """Keeps the checkpoints of one run; ``kept`` are those so far, in the order of their epochs.

    All processes of a run take the same steps; the first one alone writes.
    """

    training: Training
    state: TrainingState
    writer: RunWriter
    reporter: Reporter
    kept: tuple[KeptCheckpoint, ...] = ()

    def announce(self) -> None:
        """Report how much disk the checkpoints take at most, and warn if it has less."""
        every, epochs = self.training.save_every, self.training.epochs
        due = set(range(every, epochs + 1, every) if every else ())
        count = len(due | ({epochs} if self.training.keep == "both" else set()) - {0})
        if not count:
            return
        size = sum(tensor.nbytes for tensor in changing_tensors(self.state.tuned).values())
        needed, free = bytes_in_words(count * size), shutil.disk_usage(self.writer.path).free
        self.reporter.log(
            f"keeping up to {count:,} checkpoint{'s' if count > 1 else ''} of {bytes_in_words(size)}, {needed} in "
            f"{self.writer.path / CHECKPOINTS}"
        )
        if count * size > free:
            self.reporter.warn(f"the disk of {self.writer.path} has {bytes_in_words(free)} free; expected {needed}")

    def after_epoch(self) -> None:
        """Keep the weights of the epoch that has ended, if ``save_every`` selects it.

        Call this before the state is written.
        """
        if self.training.save_every and self.state.progress.epoch % self.training.save_every == 0:
            self._keep()

    def after_training(self) -> None:
        """Keep the last weights beside the best, if both are wanted and differ."""
        best = self.state.progress.best
        if self.training.keep == "both" and best is not None and best.epoch != self.state.progress.epoch:
            self._keep()

    def restore(self) -> None:
        """Adopt the checkpoints of an earlier process up to the epoch of the restored state.

        Those that are missing or damaged are left out, with a warning: only a new run can make them again.
        """
        done, found = self.state.progress.epoch, []
        for each in self.kept:
            path = self.writer.path / each.file
            if each.epoch < done and not _is_whole(path, each):
                self.reporter.warn(f"{path} is missing or damaged; the run continues without this checkpoint")
            elif each.epoch <= done:
                found.append(each)
        self.kept = tuple(found)
        if done:
            self.after_epoch()

    def score(self, main: Mapping[str, object], score: Callable[[str], Mapping[str, object]]) -> Iterator[None]:
        """Score each checkpoint, and yield after each; the network has the main weights again at the end.

        ``main`` are the scores of the main checkpoint; ``score`` returns those of the network as it is.
        """
        own = {name: tensor.clone() for name, tensor in changing_tensors(self.state.tuned).items()}
        for each in self.kept:
            if each.epoch == self._main_epoch:
                found = {name: main[name] for name in each.scores}
            else:
                self.state.replace_weights(read_tensors(self.writer.path / each.file))
                found = dict(score(f"epoch {each.epoch}"))
            self._replace(each.model_copy(update=found))
            yield
        self.state.replace_weights(own)

    @property
    def _main_epoch(self) -> int:
        best = self.state.progress.best
        return self.state.progress.epoch if best is None or self.training.keep == "last" else best.epoch

    def _keep(self) -> None:
        self._replace(self.writer.keep(changing_tensors(self.state.tuned), self.state.progress.epoch))

    def _replace(self, kept: KeptCheckpoint) -> None:
        others = (each for each in self.kept if each.epoch != kept.epoch)
        self.kept = tuple(sorted((*others, kept), key=lambda each: each.epoch))


def _is_whole(path: Path, kept: KeptCheckpoint) -> bool:
    return path.is_file() and path.stat().st_size == kept.bytes and sha256_of(path) == kept.sha256
