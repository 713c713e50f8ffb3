"""Rank backbones on the training split of a data set for ``zoo.rank``, and write the ranking down."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zoo.backbone import Backbone, Preprocessing
from zoo.errors import UsageError, ZooError
from zoo.text import one_line
from zoo.weights import RandomWeights, WeightSource
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import isolated
from zoo_harness.data.loading import TrainingSplit, load_training_split
from zoo_harness.data.subset import smallest_class
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.weight_source import find_local
from zoo_harness.models.weights import load_weights
from zoo_harness.ranking.halving import rounds_of, worse_for_certain
from zoo_harness.ranking.hit_bits import pack_hits, unpack_hits
from zoo_harness.ranking.paired_tests import compare_hits, tiers
from zoo_harness.ranking.readout import Readout, read_out
from zoo_harness.ranking.scores import Evidence, RankDefinition
from zoo_harness.records import option_checks
from zoo_harness.records.rank import RANK, Drop, Failure, RankedBackbone, RankRecord, ScoreRecord
from zoo_harness.records.run import WeightsRecord
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.opening import check_class_sizes
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.rank_request import RankRequest
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.byte_sizes import bytes_in_words

RAW_PIXELS, RANDOM = "raw pixels", "random"


@dataclass
class Candidate:
    """A backbone on its way through the rounds: its source of weights, and what was read of it so far."""

    name: str
    backbone: Backbone | None
    source: WeightSource
    control: bool = False
    weights: WeightsRecord | None = None
    preprocessing: Preprocessing | None = None
    parameters: int = 0
    readout: Readout | None = None  # until all scores are computed, because it may be large
    width: int = 0
    source_classes: int | None = None
    seconds: float = 0.0
    scores: dict[str, ScoreRecord] = field(default_factory=dict)
    hits: Any = None
    dropped: Drop | None = None


class Behind(NamedTuple):
    """A backbone's share of hits with its standard error, and its difference from the best on the same images."""

    own_error: float
    difference: float
    standard_error: float

    @property
    def in_words(self) -> str:
        """The difference and its standard error, or a dash for the best."""
        return (
            "-"
            if self.difference == 0 == self.standard_error
            else f"{0.0 - self.difference:.4f} ± {self.standard_error:.4f}"
        )


@dataclass(frozen=True)
class Ranking:
    """A ranking of backbones, and the files it was written to; ``rows`` are in the order of the table."""

    record: RankRecord
    directory: Path
    scores: tuple[RankDefinition, ...]

    @property
    def rows(self) -> tuple[RankedBackbone, ...]:
        """The ranked backbones, the best first."""
        return self.record.backbones

    def differences(self) -> dict[str, Behind]:
        """Return how far each backbone is behind the best, on the images that both saw, by the score of the table."""
        sort = self.record.sort
        hits = {row.name: unpack_hits(row.scores[sort].hits or "", row.images) for row in self.rows}
        best = hits[self.rows[0].name]
        found = {}
        for name, each in hits.items():
            compared, share = compare_hits(each, best[: len(each)]), float(each.mean())
            error = math.sqrt(share * (1 - share) / len(each))
            found[name] = Behind(error, compared.difference, compared.standard_error)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return self.record.model_dump(mode="json")


def rank_backbones(request: RankRequest, progress: Reporter) -> Ranking:
    """Read every backbone, score it, drop what is worse for certain, and write ``rank.json``."""
    started = time.monotonic()
    keep_freed_memory()
    with isolated():
        competition = _Competition(request, compute_context(request.options), progress)
        folder = claim_folder(request.options["out"], f"rank-{request.dataset.name}")
        competition.run()
        record = competition.record(time.monotonic() - started)
    write_text(folder / RANK, record.model_dump_json(indent=2) + "\n")
    return Ranking(record, folder, request.scores)


class _Competition:
    """All candidates of a ranking, round by round on the same growing set of images."""

    def __init__(self, request: RankRequest, compute: ComputeContext, progress: Reporter) -> None:
        self.request, self.compute, self.progress = request, compute, progress
        self.split: TrainingSplit = load_training_split(
            request.dataset,
            request.argument,
            request.data_dir,
            request.subset,
            request.reading,
            opened=request.opened.pop() if request.opened else None,
        )
        report_reading(self.split.reading, self.split.warnings, progress)
        self._check_classes()
        self.failures: list[Failure] = []
        self.candidates = [
            Candidate(each.name, each, option_checks.choose_source(each, request.options["weights"]))
            for each in request.backbones
        ]
        if request.controls:
            first = request.backbones[0]
            self.candidates += [
                Candidate(RAW_PIXELS, None, RandomWeights(), control=True),
                Candidate(f"{first.name}, {RANDOM}", first, RandomWeights(), control=True),
            ]
        halving = request.options["halving"]
        if halving is None:
            halving = len(self.candidates) > 8
        count = len(self.split.labels)
        self.rounds = rounds_of(count, len(self.split.classes)) if halving else (count,)

    def run(self) -> None:
        """Read and score the candidates in rounds."""
        self._announce()
        seen = 0
        for images in self.rounds:
            for candidate in self._alive():
                with self._left_out_on_error(candidate):
                    self._read(candidate, seen, images)
                    self._score(candidate, images)
                    if images == self.rounds[-1]:
                        self._finish(candidate, images)
            seen = images
            if images != self.rounds[-1]:
                self._drop(images)
        if not self._alive():
            first = self.failures[0]
            raise UsageError(f"no backbone could be ranked; the first failed: {first.message}", code="nothing-ranked")

    def record(self, seconds: float) -> RankRecord:
        """Return the record; the backbones that saw all images come first, each group by the score of the table."""
        alive = {candidate.name: candidate.hits for candidate in self._alive()}
        found = tiers(alive)
        sort, failed = self.request.options["sort"], {failure.name for failure in self.failures}
        ranked = sorted(
            (each for each in self.candidates if each.name not in failed and each.scores),
            key=lambda each: (each.dropped is not None, -len(each.hits), -(each.scores[sort].value or 0.0), each.name),
        )
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
            seed=options["seed"],
            sort=sort,
            rounds=self.rounds,
            backbones=tuple(_ranked(candidate, found.get(candidate.name)) for candidate in ranked),
            failures=tuple(self.failures),
            seconds=round(seconds, 3),
        )

    def _check_classes(self) -> None:
        """Refuse classes of one image each, whose nearest images can never have their label; warn of single ones."""
        counts = self.split.record.per_class
        check_class_sizes(counts)
        single = [name for name, count in zip(self.split.classes, counts, strict=True) if count == 1]
        if single:
            self.progress.warn(f"{len(single)} classes have one image, which counts as a miss, such as {single[0]!r}")

    def _announce(self) -> None:
        """Leave out networks that are too large, and say what must be fetched, before anything is."""
        most, too_large = self.request.max_parameters, []
        missing: list[tuple[Backbone, int]] = []
        for candidate in self.candidates:
            if candidate.backbone is None or candidate.control:
                continue
            absent = candidate.source.kind != "random" and find_local(candidate.backbone) is None
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
            message = f"--max-parameters {given} leaves none of {len(too_large)} backbones; try a larger number"
            raise UsageError(message, code="nothing-to-rank", option="max_parameters")
        if missing:
            licences = sorted({backbone.license or "unknown" for backbone, _count in missing})
            size = bytes_in_words(4 * sum(count for _backbone, count in missing))
            count = len(missing)
            networks = f"{count} backbone{'s' if count > 1 else ''}"
            self.progress.log(f"weights to fetch: {networks}, about {size}, under {', '.join(licences)}")

    def _alive(self) -> list[Candidate]:
        failed = {failure.name for failure in self.failures}
        return [each for each in self.candidates if each.dropped is None and each.name not in failed]

    @contextlib.contextmanager
    def _left_out_on_error(self, candidate: Candidate) -> Iterator[None]:
        """Name a backbone that fails and continue without it; the images were all decoded once before."""
        try:
            yield
        except MemoryError:
            raise
        except ZooError as error:
            failure = Failure(name=candidate.name, code=error.code, message=str(error))
        except Exception as error:  # a network may fail in any way, and the others must go on
            failure = Failure(name=candidate.name, code="network-failed", message=f"{type(error).__name__}: {error}")
        else:
            return
        self.failures.append(failure)
        candidate.readout = None
        self.progress.warn(f"{candidate.name} is left out: {one_line(failure.message)}")

    def _read(self, candidate: Candidate, seen: int, images: int) -> None:
        """Append the images from ``seen`` to ``images`` to the features of a candidate."""
        started = time.monotonic()
        if candidate.backbone is None:
            new = Readout(self.split.small_pixels(seen, images), None)
        else:
            new = self._read_network(candidate, candidate.backbone, seen, images)
        candidate.readout = new if candidate.readout is None else candidate.readout + new
        candidate.width = new.features.shape[1]
        candidate.source_classes = None if new.logits is None else new.logits.shape[1]
        candidate.seconds += time.monotonic() - started

    def _read_network(self, candidate: Candidate, backbone: Backbone, seen: int, images: int) -> Readout:
        """Build the network anew in every round, because all networks of a large field do not fit into memory."""
        self.progress.stage(f"{candidate.name}: loading weights", 0)
        torch.manual_seed(self.compute.seed)
        network = build_network(backbone.name, backbone.network)
        candidate.weights = load_weights(network, backbone, candidate.source)
        candidate.preprocessing = resolve_preprocessing(backbone, network, backbone.tuning("default"))
        candidate.parameters = sum(parameter.numel() for parameter in network.parameters())
        self.progress.stage(f"{candidate.name}: loading images", 0)
        data = self.split.decode(seen, images, BatchTransform(candidate.preprocessing))
        self.progress.stage(f"{candidate.name}: {images - seen:,} images", images - seen)
        trained = candidate.weights.kind != "random"
        return read_out(network, backbone, data, self.compute, self.progress, trained=trained)

    def _score(self, candidate: Candidate, images: int) -> None:
        """Compute the score of the table."""
        [definition] = [each for each in self.request.scores if each.key == self.request.options["sort"]]
        [candidate.hits] = self._computed(candidate, [definition], images)

    def _finish(self, candidate: Candidate, images: int) -> None:
        """Compute the other scores on the images that the candidate saw, and free its memory."""
        others = [each for each in self.request.scores if each.key != self.request.options["sort"]]
        self._computed(candidate, others, images)
        # In the order of every table.
        candidate.scores = {each.key: candidate.scores[each.key] for each in self.request.scores}
        candidate.readout = None

    def _computed(self, candidate: Candidate, definitions: Sequence[RankDefinition], images: int) -> list[Any]:
        """Compute scores on the images read so far and record them; return the hits of each."""
        assert candidate.readout is not None  # noqa: S101 - it was read just now
        evidence = Evidence(candidate.readout.features, self.split.labels[:images], candidate.readout.logits)
        self.progress.stage(f"{candidate.name}: scores", 0)
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


def _ranked(candidate: Candidate, tier: int | None) -> RankedBackbone:
    backbone = candidate.backbone
    return RankedBackbone(
        name=candidate.name,
        title=backbone.title or backbone.name if backbone else candidate.name,
        network=f"{backbone.network.kind} {backbone.network.name}" if backbone else "none",
        derived_from=backbone.derived_from if backbone else None,
        weights=candidate.weights,
        license=candidate.weights.license if candidate.weights else None,
        parameters=candidate.parameters,
        imagenet_top1=backbone.imagenet_top1 if backbone and not candidate.control else None,
        preprocessing=candidate.preprocessing,
        layer=backbone.features[-1].path if backbone else RAW_PIXELS,
        width=candidate.width,
        source_classes=candidate.source_classes,
        images=len(candidate.hits),
        seconds=round(candidate.seconds, 3),
        scores=candidate.scores,
        tier=tier,
        dropped=candidate.dropped,
        control=candidate.control,
    )
