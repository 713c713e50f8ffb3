"""Save the weights of selected epochs beside the main checkpoint of a run, and score them when the run ends.

The weights of an epoch are written before the training state of that epoch. If the process is killed after it wrote the
weights and before it wrote the state, the resumed run repeats the epoch with the same result and replaces the weights.
A resumed run also rewrites the weights of its last finished epoch, because the digest may not have been recorded yet.
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
    """Saves the checkpoints of one run; ``kept`` lists the saved checkpoints in the order of their epochs.

    Every process of a run calls the same methods, but only the first process writes files.
    """

    training: Training
    state: TrainingState
    writer: RunWriter
    reporter: Reporter
    kept: tuple[KeptCheckpoint, ...] = ()

    def announce(self) -> None:
        """Report the most disk space that the checkpoints can take, and warn if less space is free."""
        every, epochs = self.training.save_every, self.training.epochs
        due = set(range(every, epochs + 1, every) if every else ())
        count = len(due | ({epochs} if self.training.keep == "both" else set()) - {0})
        if not count:
            return
        size = sum(tensor.nbytes for tensor in changing_tensors(self.state.tuned).values())
        needed, free = bytes_in_words(count * size), shutil.disk_usage(self.writer.path).free
        self.reporter.log(
            f"saving up to {count:,} checkpoint{'s' if count > 1 else ''} of {bytes_in_words(size)} each, {needed} in "
            f"total, in {self.writer.path / CHECKPOINTS}"
        )
        if count * size > free:
            self.reporter.warn(f"the disk of {self.writer.path} has {bytes_in_words(free)} free; expected {needed}")

    def after_epoch(self) -> None:
        """Save the weights of the epoch that has ended, if ``save_every`` selects this epoch.

        Call this method before the training state of the epoch is written.
        """
        if self.training.save_every and self.state.progress.epoch % self.training.save_every == 0:
            self._keep()

    def after_training(self) -> None:
        """If ``--keep both`` was given and an earlier epoch is the best, save the weights of the last epoch too."""
        best = self.state.progress.best
        if self.training.keep == "both" and best is not None and best.epoch != self.state.progress.epoch:
            self._keep()

    def restore(self) -> None:
        """Record the checkpoints that an earlier process saved up to the epoch of the restored training state.

        Warn of each checkpoint that is missing or damaged, and skip it, because only a new run can make it again.
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
        """Score every saved checkpoint, yield after each of them, and finally give the network its main weights back.

        ``main`` holds the scores of the main checkpoint. ``score`` returns the scores of the network's current weights.
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
