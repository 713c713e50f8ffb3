"""Execute a run: score the network, train it, score it again, and write the files of the run.

If a run has several processes, all processes train, but only the first one computes scores and writes files. The
training state is saved after every epoch, so a kill loses at most the unfinished epoch. The checkpoint is written when
the run ends, so a killed run has no checkpoint until it is resumed.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.compute.out_of_memory import out_of_memory_advice
from zoo_harness.compute.precision import repeatable
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.accuracy_details import accuracy_details
from zoo_harness.evaluation.confusion import count_confusion, summarize
from zoo_harness.evaluation.layer_scores import RAW_PIXELS, run_curve
from zoo_harness.evaluation.split_evaluation import SplitEvaluation, collect_predictions, evaluate_split
from zoo_harness.evaluation.split_scores import split_separation
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.records.run import (
    EpochRecord,
    RunRecord,
    SeparationRecord,
    SplitRecord,
    SplitSeparation,
    now,
    read_run,
)
from zoo_harness.records.steps import StepRecord, read_steps
from zoo_harness.reports.plots.names import missing_font_note
from zoo_harness.runs import provenance
from zoo_harness.runs.checkpoint_keeper import CheckpointKeeper
from zoo_harness.runs.events import NoEvents
from zoo_harness.runs.frozen_features import open_trainable_model, whole_network
from zoo_harness.runs.plan import RunPlan
from zoo_harness.runs.reporter import Reporter, report_history
from zoo_harness.runs.resume import refuse_changes, refuse_finished, refuse_other_history, run_identity
from zoo_harness.runs.writer import RunWriter
from zoo_harness.separation.validation import Array
from zoo_harness.training.loop import Trainer, divergence, starting_state, steps_per_epoch
from zoo_harness.training.state import TrainingProgress
from zoo_harness.training.step_log import StepLog
from zoo_harness.util.signals import defer_signals

Ending = Literal["finished", "interrupted", "failed"]


def execute_run(
    planned: RunPlan,
    writer: RunWriter,
    policy: CachePolicy,
    reporter: Reporter,
    *,
    tensorboard: bool = False,
    log_steps: int | None = None,
    resume: bool = False,
) -> RunRecord:
    """Execute a prepared run, write its files, and return the finished record.

    If the run fails or is interrupted, its folder keeps the history and the checkpoint of the last finished epoch. The
    record then has the status ``failed`` or ``interrupted``. ``resume`` continues the run in the folder after its last
    finished epoch, with the same result as an uninterrupted run.

    Raises :class:`~zoo.errors.UsageError` if the run to resume is finished or still running, or if its data, weights or
    settings differ from those of the prepared run. Raises :class:`~zoo.errors.ZooError` if the files of the run to
    resume are damaged or belong to another run. The files of a run that cannot be resumed stay unchanged.
    """
    request = planned.request
    with out_of_memory_advice(request.training.batch_size), writer.locked(), repeatable(request.compute.deterministic):
        session = _Session(_continued(planned, writer.path, reporter) if resume else planned, writer, reporter)
        session.check_state()
        try:
            session.run(policy, tensorboard=tensorboard, log_steps=log_steps)
            session.close("finished")
        except BaseException as error:
            if session.record.status == "running":  # a finished run was written before the signal came
                with suppress(OSError):  # for example, a full disk: report the first error
                    session.close("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
    return session.record


def _continued(planned: RunPlan, directory: Path, reporter: Reporter) -> RunPlan:
    """Copy start time, command, results and checkpoints of an unfinished run into the prepared run that resumes it."""
    refuse_finished(directory)
    earlier = read_run(directory)
    for warning in refuse_changes(earlier, planned.record, directory):
        reporter.warn(warning)
    kept = {"total_seconds": None, "evaluation_split": planned.record.results.evaluation_split}
    results = earlier.results.model_copy(update=kept)
    begun = {"started": earlier.started, "command": earlier.command, "results": results}
    begun["checkpoints"] = earlier.checkpoints
    return replace(planned, record=planned.record.model_copy(update=begun))


class _Session:
    """The state of one run while it runs."""

    def __init__(self, planned: RunPlan, writer: RunWriter, reporter: Reporter) -> None:
        self.record = planned.record
        self.planned = planned
        self.writer = writer
        self.reporter = reporter
        self._events, self._log = NoEvents(), StepLog()
        self._started = time.perf_counter()
        self._data, self._compute, self._layer = planned.data, planned.request.compute, planned.request.layer
        self._is_main = self._compute.processes.is_main  # only the first process computes scores
        self._last: SplitEvaluation | None = None
        self._of_test: SplitEvaluation | None = None
        self._trainable = self._whole = whole_network(planned)
        self._state = starting_state(planned.tuned, planned.request.training)
        kept = self.record.checkpoints
        self._keeper = CheckpointKeeper(planned.request.training, self._state, writer, reporter, kept)
        self._identify()

    def check_state(self) -> None:
        """Raise an error if the training state or history in the folder belongs to another run; write nothing."""
        found = self._state.find(self.writer.path)
        progress = found.progress if found else self._state.progress
        refuse_other_history(self.writer.path, progress.history, self.planned.request.training.epochs)
        read_steps(self.writer.path)

    def run(self, policy: CachePolicy, *, tensorboard: bool, log_steps: int | None) -> None:
        """Score the network, train it, score it again, and write the results."""
        self.writer.record(self.record)
        self._keeper.announce()
        self.score_raw_pixels()
        events = self.writer.events(self._steps_per_epoch) if tensorboard else nullcontext(self._events)
        self._log = StepLog(log_steps if self._is_main else None, self._after_steps)
        steps = self.planned.request.training.epochs * self._steps_per_epoch
        if log_steps is not None and steps < log_steps and not tensorboard:
            self.reporter.warn(f"--log-steps {log_steps} logs nothing: the run has {steps:,} steps")
        trainable_model = open_trainable_model(
            self.planned, policy, self.reporter, self.reporter.log, self.reporter.warn
        )
        with events as self._events, trainable_model as (self._trainable, frozen_part):
            self._update(frozen_part=frozen_part)
            self.score_before()
            self.restore_state()
            self.train()
            self.score_after()
            self.score_test()
            self.detail_accuracies()
            self.count_confusion()
            self.keep_predictions()
            self.score_layers()
            self.score_checkpoints()
            self._events.finish(self.record)

    def score_raw_pixels(self) -> None:
        """Compute the separation scores of the raw images, and draw a picture of some images."""
        if self.record.results.separation_raw_pixels is not None or not self._is_main:
            return
        train, evaluation = self._data.train, self._data.evaluation
        self.writer.samples(evaluation, self.record)
        if note := missing_font_note(self._data.record.classes):
            self.reporter.log(note)
        separation = self._separation(RAW_PIXELS, train.raw_pixels, evaluation.raw_pixels, RAW_PIXELS)
        self._update(separation_raw_pixels=separation)

    def score_before(self) -> None:
        """Compute the separation scores of the features before training, unless the resumed run has them already."""
        if self.record.results.separation_before is not None:
            return
        self._update(separation_before=self._scored("before")[2])

    def restore_state(self) -> None:
        """Restore the training state after the last finished epoch, if an earlier process saved one."""
        self._identify()
        for warning in self._state.load(self.writer.path):
            self.reporter.warn(warning)
        self._keeper.restore()
        if self._state.progress.epoch:
            self.writer.history(self._state.progress.history)
            self._update(**_means(self._state.progress))  # a killed process may not have recorded the last epoch
            report_history(self._state.progress.history, self.reporter)
            self._last = None
        steps = self.writer.keep_steps(self._state.progress.epoch)
        self._events.begin(self.record, self._state.progress.history, steps)

    def train(self) -> None:
        """Fine-tune the network, and update the history and the training state after every epoch."""
        training = self.planned.request.training
        if training.epochs:
            layer = self._layer if self._trainable.reaches(self._layer.path) else None
            settings = training, self._compute
            Trainer(
                *(self._trainable, *settings, self._state, layer, self._after_epoch, self.reporter),
                evaluation_split=self._data.record.evaluation_name,
                log=self._log,
            ).run()
            self._warn_if_diverged()
            self._keeper.after_training()
        if training.keep != "last":
            self._state.restore_best_weights()
            self._last = None

    def _warn_if_diverged(self) -> None:
        heads = len(self.record.settings.head.parts)  # the loss is the sum over all heads
        guessing = heads * math.log(len(self.record.dataset.classes))
        diverged = divergence(self._state.progress.history, guessing)
        if diverged is not None:
            self._update(diverged=diverged)
            self.reporter.warn(diverged)

    def score_after(self) -> None:
        """Compute the final accuracy and separation scores, reusing the last epoch's evaluation if possible."""
        self._update(**self._scored_after("after"))

    def _scored_after(self, when: str) -> dict[str, Any]:
        train, evaluation, separation = self._scored(when)
        return {
            "evaluation_loss": evaluation.loss,
            "accuracy": evaluation.accuracy,
            "train_accuracy": train.accuracy,
            "separation_after": separation,
        }

    def score_test(self) -> None:
        """Compute the accuracy and separation scores of the test split once, if the run has such a split."""
        test, results = self._data.test, self.record.results
        if test is None:
            return
        self._of_test, scores = self._scored_on_test(test, "once", results.separation_after)
        if not self._is_main:
            return
        settings = self.record.settings.separation
        pixels = split_separation(test.raw_pixels, test.labels, self._compute, settings)
        self._update(**scores, separation_raw_pixels=_with_test(results.separation_raw_pixels, pixels))

    def _scored_on_test(
        self, test: ImageData, when: str, after: SeparationRecord | None
    ) -> tuple[SplitEvaluation, dict[str, Any]]:
        compute = self._compute
        source = ImageSource(test, compute.device, processes=compute.processes)
        self.reporter.stage(f"the test split, {when}", len(source))
        found = evaluate_split(self._whole, source, compute, self._layer, self.reporter)
        if not self._is_main:
            return found, {}
        self.reporter.stage(f"separation of the test split, {len(test):,} images", 0)
        scores = split_separation(found.collected, test.labels, compute, self.record.settings.separation)
        separation = _with_test(after, scores)
        return found, {"test_loss": found.loss, "test_accuracy": found.accuracy, "separation_after": separation}

    def score_checkpoints(self) -> None:
        """Score the checkpoints of selected epochs in the same way as the main checkpoint."""

        def scores(when: str) -> dict[str, Any]:
            self._last = None
            found, test = self._scored_after(when), self._data.test
            if test is None:
                return found
            return found | self._scored_on_test(test, when, found["separation_after"])[1]

        for _scored in self._keeper.score(dict(self.record.results), scores):
            self._update()

    def detail_accuracies(self) -> None:
        """Compute the accuracy of each class, and the accuracy without images that also occur in an earlier split."""
        data = self.planned.data
        scored = {
            "accuracy_details": (self._last, data.evaluation, data.record.evaluation),
            "test_accuracy_details": (self._of_test, data.test, data.record.test),
        }
        for name, (found, images, split) in scored.items():
            if self._is_main and found is not None and images is not None and split is not None:
                shared = data.shared[split.split]
                details = accuracy_details(images.labels, found.predictions, data.record.classes, shared)
                self._update(**{name: details})

    def count_confusion(self) -> None:
        """Compute the confusion matrix on the split that measures the run's accuracy.

        For a network with two heads, also record the accuracy of the alternative prediction rule.
        """
        split, images = self._headline()
        found = self._of_test or self._last
        if found is None or not self._is_main:
            return
        self._update(accuracy_by_other_rule=found.alternate_accuracy)
        confusion = count_confusion(images.labels, found.predictions, self.record.dataset.classes, split.split)
        if confusion is not None:
            self.writer.confusion(confusion, self.record)
            self._update(confusion=summarize(confusion))

    def keep_predictions(self) -> None:
        """Write the predictions for the images that the run's accuracy was measured on, and record their metrics."""
        split, images = self._headline()
        found = self._of_test or self._last
        if found is not None and self._is_main:
            predictions = collect_predictions(found, images.labels, split, len(self.record.dataset.classes))
            self._update(predictions=self.writer.predictions(predictions))

    def score_layers(self) -> None:
        """Score every declared layer of the trained network on the split that measures the run's accuracy."""
        split, images = self._headline()
        # If no class has two images, every SI is 0 and the curve would show nothing.
        if not self.planned.request.layer_curve or max(split.per_class) < 2 or not self._is_main:
            return
        self.reporter.stage(f"layers of the trained network on the {split.split} split", len(images))
        pixels = self.record.results.separation_raw_pixels
        scored = None if pixels is None else pixels.test if self._of_test else pixels.evaluation
        subject = self.planned.tuned.network, self.record.backbone.features, images, split.split
        try:
            curve = run_curve(
                *subject,
                self._compute,
                self.reporter,
                raw_pixels=scored,
                settings=self.record.settings.separation,
            )
        except ZooError as error:  # the run can finish without these scores
            self.reporter.warn(f"the layers could not be scored: {error}")
            return
        self.writer.layer_curve(curve, self.record)
        self._update(layer_curve=curve)

    def close(self, status: Ending) -> None:
        """Write the checkpoint, the plots, the model card and the final record.

        If the run was interrupted or failed, the checkpoint has the weights of the last finished epoch.
        """
        with defer_signals():
            seconds = time.perf_counter() - self._started
            self._update(total_seconds=seconds, peak_memory_gib=provenance.peak_memory_gib())
            if status == "finished":
                self.writer.checkpoint(self.planned.tuned.network, self.record)
            else:
                with suppress(OSError, ZooError):  # report the error that ended the run, not this one
                    self._state.load(self.writer.path)
                    if self._state.progress.epoch:
                        self.writer.checkpoint(self.planned.tuned.network, self.record)
            self.writer.curves(self._state.progress.history, self.record, self._steps_per_epoch)
            ended = self.record.model_copy(update={"status": status, "ended": now()})
            self.record, fault = self.writer.finish(ended)
            if fault is not None:
                self.reporter.warn(fault)

    @property
    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self._data.train), self.record.settings.training.batch_size)

    def _name(self, split: str) -> str:
        return self._data.record.evaluation_name if split == "evaluation" else split

    def _after_steps(self, steps: tuple[StepRecord, ...]) -> None:
        self.writer.steps(steps)
        self._events.steps(steps)

    def _identify(self) -> None:
        asked = self.planned.request
        scored = {"layer": asked.layer.path, "layer_curve": asked.layer_curve, "with_test": asked.with_test}
        self._state.run = run_identity(self.record, scored)

    def _headline(self) -> tuple[SplitRecord, ImageData]:
        """Return the record and images of the split that measures the accuracy: the test split if there is one."""
        data = self._data
        if data.test is None or data.record.test is None:
            return data.record.evaluation, data.evaluation
        return data.record.test, data.test

    def _after_epoch(self, epoch: EpochRecord, result: SplitEvaluation) -> None:
        with defer_signals():  # a signal between these writes would leave a half-recorded epoch
            self._keeper.after_epoch()
            self.writer.epoch(self._state, epoch)
            self._last = result
            progress = _means(self._state.progress)
            self._update(evaluation_loss=result.loss, accuracy=result.accuracy, **progress)
            self._events.epoch(epoch)
            self.reporter.on_epoch(epoch)

    def _evaluate(self, split: Literal["train", "evaluation"], when: str) -> SplitEvaluation:
        trainable = self._trainable if self._trainable.reaches(self._layer.path) else self._whole
        source = trainable.train if split == "train" else trainable.evaluation
        self.reporter.stage(f"features of the {self._name(split)} split, {when}", len(source))
        return evaluate_split(trainable, source, self._compute, self._layer, self.reporter)

    def _scored(self, when: str) -> tuple[SplitEvaluation, SplitEvaluation, SeparationRecord]:
        """Evaluate and score both splits; evaluate the evaluation split only if its last result is outdated."""
        train = self._evaluate("train", when)
        if self._last is None or self._last.features is None:
            self._last = self._evaluate("evaluation", when)
        found = train.collected, self._last.collected
        return train, self._last, self._separation(self._layer.path, *found, f"features, {when}")

    def _separation(
        self, layer: str, train: Array | Tensor, evaluation: Array | Tensor, called: str
    ) -> SeparationRecord:
        if not self._is_main:
            return SeparationRecord(layer=layer, train=None, evaluation=None)
        scores, splits = {}, (("train", train, self._data.train), ("evaluation", evaluation, self._data.evaluation))
        for split, features, images in splits:
            self.reporter.stage(f"separation of {called}: {self._name(split)} split, {len(images):,} images", 0)
            settings = self.record.settings.separation
            scores[split] = split_separation(features, images.labels, self._compute, settings)
        return SeparationRecord(layer=layer, **scores)

    def _update(self, **results: object) -> None:
        updated = self.record.results.model_copy(update=results)
        self.record = self.record.model_copy(update={"results": updated, "checkpoints": self._keeper.kept})
        self.writer.record(self.record)


def _with_test(separation: SeparationRecord | None, test: SplitSeparation | None) -> SeparationRecord | None:
    return separation and separation.model_copy(update={"test": test})


def _means(progress: TrainingProgress) -> dict[str, float | None]:
    """Return the number of epochs in a training history, the best epoch, and the mean seconds per epoch."""
    history, best = progress.history, progress.best
    return {
        "epochs_done": progress.epoch,
        "best_epoch": best.epoch if best else None,
        "mean_train_seconds": fmean(line.train_seconds for line in history),
        "mean_evaluation_seconds": fmean(line.evaluation_seconds for line in history),
    }
