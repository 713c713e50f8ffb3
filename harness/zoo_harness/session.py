"""One run while it runs: scores, training, scores again, and everything written down as it comes.

Of several processes all go through the same steps, and the first alone scores and writes.

After every epoch the state of the training is on the disk, so that a kill costs no more than the epoch it falls into.
The checkpoint is written when the run ends, in whatever way; one that was killed has none until it is resumed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from zoo.errors import ZooError
from zoo_harness import checkpoint, provenance
from zoo_harness.cache_policy import CachePolicy
from zoo_harness.card import render_card
from zoo_harness.confusion import count_confusion, summarize
from zoo_harness.confusion_plot import plot_confusion
from zoo_harness.data import ImageData
from zoo_harness.device import repeatable
from zoo_harness.device_memory import told_in_words
from zoo_harness.evaluate import Plan
from zoo_harness.feature_input import Array
from zoo_harness.frozen_part import open_learner, whole_network
from zoo_harness.interrupts import held_back
from zoo_harness.layer_curve import RAW_PIXELS
from zoo_harness.plots import plot_history, plot_learning_rate, plot_samples
from zoo_harness.run_changes import refuse_changes, refuse_finished
from zoo_harness.run_curve import plot_run_curve, run_curve
from zoo_harness.run_directory import RunDirectory
from zoo_harness.run_record import (
    EpochRecord,
    FrozenPartRecord,
    RunRecord,
    SeparationRecord,
    SplitRecord,
    SplitSeparation,
    now,
    read_run,
)
from zoo_harness.sources import ImageSource
from zoo_harness.split_separation import split_separation
from zoo_harness.tensorboard_log import event_log
from zoo_harness.train import Evaluation, FineTuning, Learner, Progress, evaluate, starting_state, steps_per_epoch

Ending = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Watch:
    """Who is told of a run: of every part and its progress, of each epoch as it ends, and in a line now and then."""

    progress: Progress
    announce: Callable[[EpochRecord], None]
    say: Callable[[str], None]
    tensorboard: bool = False


def run(planned: Plan, directory: RunDirectory, policy: CachePolicy, watch: Watch) -> RunRecord:
    """Carry a plan out, writing the run directory as it goes; return the finished record.

    A run that is interrupted or fails leaves its history, the checkpoint of its last whole epoch, and a record that
    says so.
    """
    return _carry_out(_Session(planned, directory, watch), policy)


def resume(planned: Plan, directory: RunDirectory, policy: CachePolicy, watch: Watch) -> RunRecord:
    """Go on with the run in this directory from its last whole epoch, as if it had never stopped.

    Raises :class:`~zoo.errors.UsageError` where the run is finished, is still running, or began with other data,
    weights or settings than ``planned``.
    """
    refuse_finished(directory.path)
    earlier = read_run(directory.path)
    for warning in refuse_changes(earlier, planned.record, directory.path):
        watch.say(f"warning: {warning}")
    results = earlier.results.model_copy(update={"total_seconds": None})
    record = planned.record.model_copy(
        update={"started": earlier.started, "command": earlier.command, "results": results}
    )
    return _carry_out(_Session(replace(planned, record=record), directory, watch), policy)


def _carry_out(session: _Session, policy: CachePolicy) -> RunRecord:
    conditions = session.planned.request.conditions
    noted = session.watch.tensorboard and conditions.processes.leads
    with (
        told_in_words(session.planned.request.training.batch_size),
        session.directory.held(),
        repeatable(conditions.deterministic),
        event_log(session.directory.path, wanted=noted) as session.note,
    ):
        try:
            session.begin()
            session.score_raw_pixels()
            with open_learner(session.planned, policy, session.watch.progress, session.watch.say) as learner:
                session.learn_with(*learner)
                session.score_before()
                session.take_up()
                session.train()
                session.score_after()
                session.score_test()
                session.count_confusion()
                session.score_layers()
            return session.close("finished")
        except KeyboardInterrupt:
            session.close("interrupted")
            raise
        except BaseException:
            with contextlib.suppress(OSError):  # a disk that is full: the first error tells it
                session.close("failed")
            raise


class _Session:
    """The state of one run while it runs."""

    def __init__(self, planned: Plan, directory: RunDirectory, watch: Watch) -> None:
        self.record = planned.record
        self.planned = planned
        self.directory = directory
        self.watch = watch
        self.note: Callable[[EpochRecord], None] = lambda _epoch: None
        self._progress = watch.progress
        self._started = time.perf_counter()
        self._layer = planned.request.layer
        self._leads = planned.request.conditions.processes.leads
        self._last: Evaluation | None = None
        self._of_test: Evaluation | None = None
        self._learner = self._whole = whole_network(planned)
        self._state = starting_state(planned.tuned, planned.request.training)

    def begin(self) -> None:
        """Write the record down before anything is computed."""
        self.directory.write_record(self.record)

    def learn_with(self, learner: Learner, made: FrozenPartRecord) -> None:
        """Take what computes logits from now on."""
        self._learner = learner
        self._update(frozen_part=made)

    def take_up(self) -> None:
        """Go back to where an earlier process stood, if there was one."""
        self._state.load(self.directory.path)
        if self._state.standing.epoch:
            self.directory.rewrite_history(self._state.standing.history)
            self._update(**_progress_of(self._state.standing.history))  # the record too may be an epoch behind
            self._last = None

    def score_raw_pixels(self) -> None:
        """Separation of the images themselves, and the sample grid."""
        if self.record.results.separation_raw_pixels is not None or not self._leads:
            return
        data = self.planned.data
        plot_samples(
            data.evaluation.images, data.evaluation.labels.numpy(), data.record.classes, self.directory.samples
        )
        separation = self._separation(RAW_PIXELS, data.train.raw_pixels, data.evaluation.raw_pixels, RAW_PIXELS)
        self._update(separation_raw_pixels=separation)

    def score_before(self) -> None:
        """Separation that the weights give as they came."""
        if self.record.results.separation_before is not None:
            return
        train = self._evaluate("train", "before")
        self._last = self._evaluate("evaluation", "before")
        separation = self._separation(self._layer.path, train.collected, self._last.collected, "features, before")
        self._update(separation_before=separation)

    def train(self) -> None:
        """Fine-tune, keeping history and state up to date after every epoch."""
        request = self.planned.request
        if request.training.epochs:
            layer = self._layer if self._learner.reaches(self._layer.path) else None
            FineTuning(
                self._learner,
                request.training,
                request.conditions,
                self._state,
                layer,
                self._after_epoch,
                self._progress,
            ).run()
        if request.training.keep == "best":
            self._state.take_best()
            self._last = None

    def score_after(self) -> None:
        """Final accuracy and separation; the last epoch may have scored the evaluation split already."""
        train = self._evaluate("train", "after")
        if self._last is None or self._last.features is None:
            self._last = self._evaluate("evaluation", "after")
        separation = self._separation(self._layer.path, train.collected, self._last.collected, "features, after")
        self._update(
            evaluation_loss=self._last.loss,
            accuracy=self._last.accuracy,
            train_accuracy=train.accuracy,
            separation_after=separation,
        )

    def score_test(self) -> None:
        """Accuracy and separation of the split that was kept for the end: the one look at it."""
        test, conditions, results = self.planned.data.test, self.planned.request.conditions, self.record.results
        if test is None:
            return
        source = ImageSource(test, conditions.device, processes=conditions.processes)
        self._progress.stage("the test split, once", len(source))
        self._of_test = found = evaluate(self._whole, source, conditions, self._layer, self._progress)
        if not self._leads:
            return
        self._progress.stage(f"separation of the test split, {len(test):,} images", 0)
        pixels, after = results.separation_raw_pixels, results.separation_after
        self._update(
            test_loss=found.loss,
            test_accuracy=found.accuracy,
            separation_raw_pixels=_with_test(pixels, split_separation(test.raw_pixels, test.labels, conditions)),
            separation_after=_with_test(after, split_separation(found.collected, test.labels, conditions)),
        )

    def count_confusion(self) -> None:
        """Which classes are taken for which in the split of the headline, and what two heads give by the other rule."""
        split, images = self._headline()
        found = self._of_test or self._last
        if found is None or not self._leads:
            return
        self._update(accuracy_by_other_rule=found.by_other_rule)
        confusion = count_confusion(images.labels, found.predictions, self.record.dataset.classes, split.split)
        if confusion is not None:
            confusion.write(self.directory.path)
            plot_confusion(confusion, self.directory.path / "confusion.png")
            self._update(confusion=summarize(confusion))

    def score_layers(self) -> None:
        """Separation at every declared layer of the trained network, in the split of the headline."""
        split, images = self._headline()
        if not self.planned.request.layer_curve or len(images) < 2 or not self._leads:
            return
        self._progress.stage(f"layers of the trained network on the {split.split} split", len(images))
        pixels = self.record.results.separation_raw_pixels
        scored = None if pixels is None else pixels.test if self._of_test else pixels.evaluation
        try:
            curve = run_curve(
                self.planned.tuned.network,
                self.record.backbone.features,
                images,
                split.split,
                self.planned.request.conditions,
                self._progress,
                raw_pixels=scored,
            )
        except ZooError as error:  # what was trained and measured is worth more than this curve
            self.watch.say(f"warning: no separation of the layers: {error}")
            return
        plot_run_curve(curve, self.record.backbone.name, self.directory.path / "layers.png")
        self._update(layer_curve=curve)

    def close(self, status: Ending) -> RunRecord:
        """Write the checkpoint, the card, the plots, and the record for the last time.

        Where the run was cut short the checkpoint has the weights of the last whole epoch.
        """
        if not self._leads:
            return self.record
        with held_back():
            self._update(
                total_seconds=time.perf_counter() - self._started, peak_memory_gib=provenance.peak_memory_gib()
            )
            if status == "finished":
                self._save_checkpoint()
            elif self._state.standing.epoch:
                with contextlib.suppress(OSError, ZooError):  # what cut the run short tells more
                    self._state.load(self.directory.path)
                    self._save_checkpoint()
            plot_history(list(self._state.standing.history), self.directory.path)
            plot_learning_rate(
                self.record.settings.training,
                self._state.standing.epoch,
                steps_per_epoch(len(self.planned.data.train), self.record.settings.training.batch_size),
                self.directory.path,
            )
            ending = {
                "status": status,
                "ended": now(),
                "plots": self.directory.plots(),
                "checkpoint_sha256": checkpoint.digest(self.directory.path),
            }
            self.record = self.record.model_copy(update=ending)
            fault = self.directory.finish(self.record, render_card(self.record))
            if fault is not None:
                self.watch.say(f"warning: {fault}")
        return self.record

    def _headline(self) -> tuple[SplitRecord, ImageData]:
        """The split that stands for the run, and its images."""
        data = self.planned.data
        if data.test is None or data.record.test is None:
            return data.record.evaluation, data.evaluation
        return data.record.test, data.test

    def _after_epoch(self, epoch: EpochRecord, result: Evaluation) -> None:
        with held_back():  # state, history and record speak of the same epoch
            if self._leads:
                self._state.save(self.directory.path)
            self.directory.append_epoch(epoch)
            self._last = result
            progress = _progress_of(self._state.standing.history)
            self._update(evaluation_loss=result.loss, accuracy=result.accuracy, **progress)
            self.note(epoch)
            self.watch.announce(epoch)

    def _save_checkpoint(self) -> None:
        checkpoint.save_checkpoint(self.planned.tuned.network, self.directory.path)
        checkpoint.save_configuration(self.planned.tuned.network, self.record, self.directory.path)

    def _evaluate(self, split: Literal["train", "evaluation"], when: str) -> Evaluation:
        learner = self._learner if self._learner.reaches(self._layer.path) else self._whole
        source = learner.train if split == "train" else learner.evaluation
        self._progress.stage(f"features of the {split} split, {when}", len(source))
        return evaluate(learner, source, self.planned.request.conditions, self._layer, self._progress)

    def _separation(
        self, layer: str, train: Array | Tensor, evaluation: Array | Tensor, called: str
    ) -> SeparationRecord:
        data, conditions = self.planned.data, self.planned.request.conditions
        if not self._leads:
            return SeparationRecord(layer=layer, train=None, evaluation=None)
        scores = {}
        for split, features, images in (("train", train, data.train), ("evaluation", evaluation, data.evaluation)):
            self._progress.stage(f"separation of {called}: {split} split, {len(images):,} images", 0)
            scores[split] = split_separation(features, images.labels, conditions)
        return SeparationRecord(layer=layer, **scores)

    def _update(self, **results: object) -> None:
        updated = self.record.results.model_copy(update=results)
        self.record = self.record.model_copy(update={"results": updated})
        self.directory.write_record(self.record)


def _with_test(separation: SeparationRecord | None, test: SplitSeparation | None) -> SeparationRecord | None:
    return separation and separation.model_copy(update={"test": test})


def _progress_of(history: tuple[EpochRecord, ...]) -> dict[str, float]:
    """What the results say of how far a run has come."""
    return {
        "epochs_done": len(history),
        "mean_train_seconds": sum(line.train_seconds for line in history) / len(history),
        "mean_evaluation_seconds": sum(line.evaluation_seconds for line in history) / len(history),
    }
