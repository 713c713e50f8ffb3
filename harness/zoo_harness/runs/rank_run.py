"""Rank backbones on the training split of a dataset for ``zoo.rank``, and write the ranking to a folder."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zoo.backbone import Backbone
from zoo.errors import UsageError, ZooError
from zoo.license_terms import binding_terms
from zoo.text import one_line
from zoo.weights import RandomWeights
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import isolated
from zoo_harness.data.loading import TrainingSplit, load_training_split
from zoo_harness.data.subset import smallest_class
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.split_scores import class_warnings
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.models.build import build_network
from zoo_harness.models.fingerprints import digest_of_tensors
from zoo_harness.models.preprocessing import normalised_by
from zoo_harness.ranking.halving import rounds_of, worse_for_certain
from zoo_harness.ranking.hit_bits import pack_hits, unpack_hits
from zoo_harness.ranking.paired_tests import Behind, behind_best, tiers
from zoo_harness.ranking.readout import FeatureReader, Readout, read_out
from zoo_harness.ranking.scores import Evidence, RankDefinition
from zoo_harness.records import option_checks
from zoo_harness.records.rank import PLOT, RANK, Drop, Failure, RankedBackbone, RankRecord, ScoreRecord
from zoo_harness.records.run import DatasetRecord
from zoo_harness.reports.plots.ranking import plot_ranking
from zoo_harness.reports.plots.run import Finish
from zoo_harness.reports.wording import NORMALIZATIONS
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.opening import check_class_sizes
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.rank_accuracies import tuned_folder, with_accuracies
from zoo_harness.runs.rank_candidates import RANDOM, RAW_PIXELS, Candidate, LazyImages
from zoo_harness.runs.rank_request import RankRequest
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.util import durations
from zoo_harness.util.atomic_files import folder_lock, write_text
from zoo_harness.util.byte_sizes import bytes_in_words

FEWEST_TELLING = 30
"""Below this number of images, zoo warns that a ranking can hardly tell backbones apart."""
SMALLEST_GROWTH = 1.1
"""If the time budget shortens the last round, it must still have at least 1.1 times the images of the round before."""


@dataclass(frozen=True)
class Ranking:
    """A finished ranking of backbones: its record, the folder with its files, and the definitions of its scores."""

    record: RankRecord
    directory: Path
    scores: tuple[RankDefinition, ...]

    @property
    def rows(self) -> tuple[RankedBackbone, ...]:
        """The ranked backbones with their scores, best first."""
        return self.record.backbones

    def differences(self) -> dict[str, Behind]:
        """Return how much each backbone scores below the best, by the score that sorts the table.

        Two backbones are compared on the images that both were scored on.
        """
        sort = self.record.sort
        return behind_best({row.name: unpack_hits(row.scores[sort].hits or "", row.images) for row in self.rows})

    def tuned_folder(self, name: str) -> Path:
        """Return the folder of the run in which ``--tune`` fine-tuned a backbone."""
        return tuned_folder(self.directory, name)

    def to_dict(self) -> dict[str, Any]:
        """Return the ranking as a dictionary that can be written as JSON."""
        return self.record.model_dump(mode="json")


def rank_backbones(request: RankRequest, progress: Reporter) -> Ranking:
    """Compute features and scores of every backbone, and write ``rank.json`` and ``rank.png``.

    After each round, the ranking drops backbones that are significantly worse than the best backbone. Features are
    cached, so an interrupted ranking can be resumed; a note on the ``KeyboardInterrupt`` names the command.
    """
    started = time.monotonic()
    keep_freed_memory()
    with contextlib.ExitStack() as stack:
        if request.resume is not None:
            stack.enter_context(_locked(request.resume))
        with isolated():
            competition = _Competition(request, compute_context(request.options), progress)
            competition.announce()
            folder = request.resume or claim_folder(request.options["out"], f"rank-{request.dataset.name}")
            if request.resume is None:
                stack.enter_context(_locked(folder))
            request.write_options(folder)
            with _note_how_to_resume(folder, request, competition):
                competition.run()
            record = competition.record(time.monotonic() - started)
        _write(record, request, folder)
        if request.tune or request.against:
            record = with_accuracies(record, request, folder, progress)
            _write(record, request, folder)
    return Ranking(record, folder, request.scores)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a ranking; raise :class:`~zoo.errors.UsageError` if another process has locked it."""
    with folder_lock(folder) as locked:
        if not locked:
            message = f"{folder}: another process is still executing this ranking"
            raise UsageError(message, code="run-is-running", path=folder)
        yield


def _write(record: RankRecord, request: RankRequest, folder: Path) -> None:
    write_text(folder / RANK, record.model_dump_json(indent=2) + "\n")
    plot_ranking(record, request.scores, folder / PLOT, Finish(svg=request.options["svg"]))


@contextlib.contextmanager
def _note_how_to_resume(folder: Path, request: RankRequest, competition: _Competition) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        again = f"zoo rank --resume {shlex.quote(str(folder))}"
        if request.in_python:
            again = f"zoo.rank(dataset, backbones, resume={str(folder)!r})"
        note = f"features of {competition.finished} are cached; {again} resumes the ranking"
        if request.options["cache"] == "off":
            note = f"--cache off stores no features; {again} starts again"
        error.add_note(f"interrupted; {note}")
        raise


class _Competition:
    """Scores all candidates of a ranking in rounds; every round adds images, and all candidates see the same images."""

    def __init__(self, request: RankRequest, compute: ComputeContext, progress: Reporter) -> None:
        self.request, self.compute, self.progress = request, compute, progress
        self.started = time.monotonic()
        self.split: TrainingSplit = load_training_split(
            request.dataset,
            request.argument,
            request.data_dir,
            request.subset,
            request.reading,
            count_values=request.normalization.source == "dataset",
            opened=request.opened.pop() if request.opened else None,
        )
        report_reading(self.split.reading, self.split.warnings, progress)
        if request.normalization.source != "weights":
            progress.log(f"mean and standard deviation of the images: {NORMALIZATIONS[request.normalization.source]}")
        self._check_classes()
        self.failures: list[Failure] = []
        self.candidates = _candidates(request)
        self._mark_trained_runs()
        halving = request.options["halving"]
        if halving is None:
            halving = request.budget is not None or len(self.candidates) > 8
        count = len(self.split.labels)
        self.planned = rounds_of(count, len(self.split.classes)) if halving else (count,)
        self.rounds: list[int] = []
        self.stopped = ""

    @property
    def finished(self) -> str:
        """How many of the backbones are fully scored, as text such as ``3 of 8 backbones``."""
        read = [each for each in self.candidates if each.scores]
        return f"{len(read)} of {len(self.candidates)} backbones"

    def run(self) -> None:
        """Compute features and scores of the candidates in rounds, until the time budget is used up."""
        seen = 0
        if self.request.budget is not None:
            limit = f"--budget {self.request.options['budget']}"
            self.progress.log(f"the first round reads {self.planned[0]:,} images, even if it takes longer than {limit}")
        for number, planned in enumerate(self.planned):
            images = self._affordable(seen, planned)
            if images <= seen:
                break
            final = images == self.planned[-1] or images < planned
            self._read_round(seen, images, number, final=final)
            seen = images
            self.rounds.append(images)
            if final:
                break
            self._drop(images)
        for candidate in self._alive():
            if candidate.readout is not None:  # the budget ended before the planned last round
                with self._left_out_on_error(candidate):
                    self._finish(candidate, seen)
        if not self._alive():
            first = self.failures[0]
            raise UsageError(f"no backbone could be ranked; the first failed: {first.message}", code="nothing-ranked")

    def _read_round(self, seen: int, images: int, number: int, *, final: bool) -> None:
        alive = self._alive()
        for place, candidate in enumerate(alive, 1):
            with self._left_out_on_error(candidate):
                self.heading = f"{candidate.name} ({place} of {len(alive)}, round {number + 1})"
                self._read(candidate, seen, images)
                self._score(candidate, images)
                if final:
                    self._finish(candidate, images)

    def _affordable(self, seen: int, planned: int) -> int:
        """Return the total number of images after the next round, as limited by the remaining time budget."""
        if self.request.budget is None or not seen:
            return planned
        left = self.request.budget - (time.monotonic() - self.started)
        rate = sum(each.seconds / max(1, each.computed or seen) for each in self._alive())
        most = seen + int(max(0.0, left) / max(rate, 1e-9))
        if most >= planned:
            return planned
        images = most if most >= seen * SMALLEST_GROWTH else seen
        total = self.planned[-1]
        self.stopped = f"the budget of {durations.in_words(self.request.budget)} allowed {images:,} of {total:,} images"
        return images

    def record(self, seconds: float) -> RankRecord:
        """Return the record of the ranking, with the candidates in the order of the table.

        Candidates that were never dropped come first, then dropped candidates by the number of images they were scored
        on. Candidates with equal numbers of images are ordered by the score that sorts the table.
        """
        sort, failed = self.request.options["sort"], {failure.name for failure in self.failures}
        ranked = sorted(
            (each for each in self.candidates if each.name not in failed and each.scores),
            key=lambda each: (each.dropped is not None, -len(each.hits), -(each.scores[sort].value or 0.0), each.name),
        )
        found = tiers({each.name: each.hits for each in ranked if each.dropped is None})
        behind = behind_best({each.name: each.hits for each in ranked})
        options, split = self.request.options, self.split
        return RankRecord(
            command=self.request.command,
            versions=provenance.versions(),
            dataset=split.name,
            title=split.title,
            classes=split.classes,
            images=len(split.labels),
            per_class=split.record.per_class,
            subset=self.request.subset.in_words(("training split", smallest_class(split.record))),
            fingerprint=split.record.fingerprint,
            normalization=self.request.normalization.source,
            seed=options["seed"],
            sort=sort,
            rounds=tuple(self.rounds),
            stopped=self.stopped,
            backbones=tuple(each.ranked(found.get(each.name), behind[each.name]) for each in ranked),
            failures=tuple(self.failures),
            seconds=round(seconds, 3),
            input_size=self.request.input_size,
            duplicates=split.duplicates,
        )

    def _check_classes(self) -> None:
        """Raise an error if every class has one image, and warn about each class that has too few images."""
        counts = self.split.record.per_class
        check_class_sizes(counts, self.request.subset)
        if sum(counts) < FEWEST_TELLING:
            self.progress.warn(
                f"{sum(counts)} images are too few to tell backbones apart; expected {FEWEST_TELLING} or more"
            )
        for line in class_warnings(self.split.record, self.split.classes, order=1):
            self.progress.warn(line)

    def _mark_trained_runs(self) -> None:
        """Mark the runs that were trained on images of the ranking's dataset, and warn about each of these runs."""
        for candidate in self.candidates:
            run = candidate.run_record
            if run is not None and run.settings.training.epochs and self._is_dataset_of(run.dataset):
                candidate.trained_on_dataset = True
                self.progress.warn(trained_warning(candidate.name))

    def _is_dataset_of(self, dataset: DatasetRecord) -> bool:
        split = self.split
        same_name = dataset.name == split.name.partition(":")[0] and dataset.classes == split.classes
        return same_name and (dataset.title == split.title or dataset.source == split.source)

    def announce(self) -> None:
        """Remove networks that exceed ``--max-parameters``, and report what must be downloaded, before downloading."""
        most, too_large = self.request.max_parameters, []
        missing: list[tuple[Backbone, int]] = []
        for candidate in self.candidates:
            if candidate.backbone is None or candidate.control:
                continue
            absent = candidate.to_fetch
            if most is None and not absent:
                continue
            with self._left_out_on_error(candidate):
                network = build_network(candidate.name, candidate.backbone.network, device="meta")
                count = sum(parameter.numel() for parameter in network.parameters())
                if most is not None and count > most:
                    too_large.append(candidate)
                elif absent:
                    missing.append((candidate.backbone, count))
        self.candidates = [each for each in self.candidates if each not in too_large]
        if all(each.control for each in self.candidates):
            given = self.request.options["max_parameters"]
            message = f"--max-parameters {given} excludes all {len(too_large)} backbones; try a larger number"
            raise UsageError(message, code="nothing-to-rank", option="max_parameters")
        if missing:
            licences = sorted({backbone.license or "unknown" for backbone, _count in missing})
            for backbone, _count in missing:
                if terms := binding_terms(backbone.license):
                    self.progress.warn(f"licence of {backbone.name}: {backbone.license}, {terms}")
            size = bytes_in_words(4 * sum(count for _backbone, count in missing))
            count = len(missing)
            networks = f"{count} backbone{'s' if count > 1 else ''}"
            self.progress.log(f"weights to download: {networks}, about {size}, licences: {', '.join(licences)}")

    def _alive(self) -> list[Candidate]:
        failed = {failure.name for failure in self.failures}
        return [each for each in self.candidates if each.dropped is None and each.name not in failed]

    @contextlib.contextmanager
    def _left_out_on_error(self, candidate: Candidate) -> Iterator[None]:
        """Context manager that turns an error of one candidate into a warning and excludes this candidate.

        A damaged image cannot cause such an error, because every image was decoded once before.
        """
        try:
            yield
        except MemoryError:
            raise
        except ZooError as error:
            failure = Failure(name=candidate.name, code=error.code, message=str(error))
        except Exception as error:  # a network may raise any exception, and the other networks must still be ranked
            failure = Failure(name=candidate.name, code="network-failed", message=f"{type(error).__name__}: {error}")
        else:
            return
        self.failures.append(failure)
        candidate.readout = None
        self.progress.warn(f"{candidate.name} is excluded: {one_line(failure.message)}")

    def _read(self, candidate: Candidate, seen: int, images: int) -> None:
        """Compute a candidate's features of the images from index ``seen`` up to ``images``, and append them."""
        started = time.monotonic()
        if candidate.backbone is None and candidate.run is None:
            new = Readout(self.split.small_pixels(seen, images), None, images - seen)
        else:
            new = self._read_network(candidate, seen, images)
        candidate.readout = new if candidate.readout is None else candidate.readout + new
        candidate.width, candidate.computed = new.features.shape[1], candidate.computed + new.computed
        candidate.source_classes = None if new.logits is None else new.logits.shape[1]
        candidate.seconds += time.monotonic() - started

    def _read_network(self, candidate: Candidate, seen: int, images: int) -> Readout:
        self.progress.stage(f"{self.heading}: loading weights", 0)
        opened = candidate.open(self.compute.seed, self.request.input_size)
        network = opened.network.to(self.compute.device)
        network.to(memory_format=torch.channels_last)
        reader = FeatureReader(network, opened.layer, opened.head, self.compute)
        preprocessing = opened.preprocessing
        if candidate.run is None:  # a run keeps its own mean and standard deviation
            preprocessing = normalised_by(preprocessing, self.request.normalization, self.split.small.counts)
        candidate.preprocessing, transform = preprocessing, BatchTransform(preprocessing)
        with LazyImages(self.split, seen, images, transform, self.compute.device) as lazy:
            self.progress.stage(f"{self.heading}: {images - seen:,} images", images - seen)
            key = CacheKey(
                network=candidate.described,
                weights=digest_of_tensors(network.state_dict().items()),
                kept=reader.specs(lazy),
                preprocessing=preprocessing,
                images=len(lazy),
                fingerprint=f"{self.split.record.fingerprint}, images {seen} to {images}, layer {opened.layer.path}",
                precision=self.compute.precision,
                device=self.compute.device.type,
                code=opened.code,
            )
            title = EntryTitle(backbone=candidate.name, dataset=self.split.title, split="train, ranked")
            policy = CachePolicy.of(self.request.options["cache"], None)
            return read_out(reader, lazy, key, title, policy, self.progress, self.progress.log)

    def _score(self, candidate: Candidate, images: int) -> None:
        """Compute the score that sorts the table."""
        [definition] = [each for each in self.request.scores if each.key == self.request.options["sort"]]
        [candidate.hits] = self._computed(candidate, [definition], images)

    def _finish(self, candidate: Candidate, images: int) -> None:
        """Compute a candidate's other scores on its first ``images`` images, and free its features."""
        others = [each for each in self.request.scores if each.key != self.request.options["sort"]]
        self._computed(candidate, others, images)
        # Tables show the scores in the order of the request.
        candidate.scores = {each.key: candidate.scores[each.key] for each in self.request.scores}
        candidate.readout = None

    def _computed(self, candidate: Candidate, definitions: Sequence[RankDefinition], images: int) -> list[Any]:
        """Compute and record scores of a candidate on the first ``images`` images; return each score's hit array."""
        assert candidate.readout is not None  # noqa: S101 - _read() has set the readout
        evidence = Evidence(candidate.readout.features, self.split.labels[:images], candidate.readout.logits)
        self.progress.stage(f"{self.heading}: scores", 0)
        hits = []
        for definition in definitions:
            started = time.monotonic()
            score = definition.compute(evidence)
            hits.append(score.hits)
            candidate.scores[definition.key] = ScoreRecord(
                value=score.value,
                reason=score.reason,
                details=score.details,
                seconds=round(time.monotonic() - started, 4),
                hits=None if score.hits is None else pack_hits(score.hits),
            )
        return hits

    def _drop(self, images: int) -> None:
        by_name = {each.name: each for each in self._alive()}
        for excluded in worse_for_certain({name: each.hits for name, each in by_name.items()}):
            candidate = by_name[excluded.name]
            candidate.dropped = Drop(
                images=images,
                against=excluded.best,
                first_only=excluded.difference.first_only,
                second_only=excluded.difference.second_only,
                p=excluded.p,
            )
            with self._left_out_on_error(candidate):
                self._finish(candidate, images)


def trained_warning(name: str) -> str:
    """Return the warning about a run whose score is too high.

    >>> trained_warning("resnet18 (one)")
    'resnet18 (one) was trained on images of this dataset, so its score is too high'
    """
    return f"{name} was trained on images of this dataset, so its score is too high"


def _candidates(request: RankRequest) -> list[Candidate]:
    """Return the candidates of a ranking: its backbones, then its runs, then its controls."""
    weights = request.options["weights"]
    found = [Candidate(each.name, each, option_checks.choose_source(each, weights)) for each in request.backbones]
    found += [Candidate(called, run=run, run_record=record) for called, run, record in request.runs]
    if request.controls:
        found.append(Candidate(RAW_PIXELS, control=True))
    if request.controls and weights != "random":
        first = request.backbones[0]
        found.append(Candidate(f"{first.name}, {RANDOM}", first, RandomWeights(), control=True))
    return found
