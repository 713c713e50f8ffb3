"""The functions that ``zoo`` exports from the harness; each imports its own needs when it is called."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from zoo._lazy import lazy_imports
from zoo.backbone import Backbone
from zoo.dataset import Dataset
from zoo.errors import UsageError
from zoo_harness.records.option import checked, with_defaults
from zoo_harness.records.options import (
    EvalOptions,
    FeaturesOptions,
    LayersOptions,
    PublishOptions,
    RankOptions,
    RescoreOptions,
    SeparationOptions,
    StatsOptions,
    SweepOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    import torch

    from zoo_harness.checkpoints.loaded_model import LoadedModel as LoadedModel
    from zoo_harness.data.in_memory import in_memory as in_memory
    from zoo_harness.hub.publish import Publication as Publication
    from zoo_harness.records.statistics import DatasetStatistics as DatasetStatistics
    from zoo_harness.reports.comparison import Comparison as Comparison
    from zoo_harness.runs.features_run import Features as Features
    from zoo_harness.runs.layer_run import LayerScoring as LayerScoring
    from zoo_harness.runs.rank_run import Ranking as Ranking
    from zoo_harness.runs.reporter import Reporter as Reporter
    from zoo_harness.runs.request import Checkpoint  # for annotations here alone
    from zoo_harness.runs.rescore import RescoreRecord as RescoreRecord
    from zoo_harness.runs.run import Run as Run, open_run as open_run
    from zoo_harness.separation.feature_ranking import FeatureRanking as FeatureRanking, rank_features as rank_features
    from zoo_harness.separation.index import (
        anti_si as anti_si,
        centre_si as centre_si,
        high_order_si as high_order_si,
        separation as separation,
        separation_index as separation_index,
        soft_si as soft_si,
    )
    from zoo_harness.separation.result import (
        Score as Score,
        Separation as Separation,
        SeparationIndex as SeparationIndex,
    )
    from zoo_harness.separation.torchmetrics_metric import SeparationMetric as SeparationMetric
    from zoo_harness.sweeps.sweep import Sweep as Sweep

__getattr__, __dir__, _HOME_OF = lazy_imports(__name__)


def evaluate(
    backbone: str | Backbone | Run | None = None,
    dataset: str | Dataset | None = None,
    *,
    progress: bool | Reporter = False,
    **options: Unpack[EvalOptions],
) -> Run:
    """Fine-tune one block of a backbone on a dataset, score it, and write checkpoint, card and plots.

    ``backbone`` is a name, a record that need not be registered, or a run, whose checkpoint provides the initial
    weights under a new head; :func:`rescore` scores a run unchanged. ``dataset`` is a name such as ``"cifar10"`` or
    ``"imagefolder:photos"``, or a :class:`~zoo.Dataset`, such as :func:`zoo.in_memory` returns. ``options`` are those
    of ``zoo eval``: the same names, types and defaults. ``progress`` shows bars and epochs on standard error; it may
    also be a :class:`~zoo.Reporter`.

    Nothing is printed otherwise; messages go to the logger ``zoo``. The caller's random generators, threads and signal
    handlers are the same afterwards. Raises a :class:`~zoo.ZooError` for every mistake. A ``KeyboardInterrupt`` leaves
    a run that ``zoo.evaluate(resume=RUN)`` continues, to the same bits.

    >>> import tempfile, zoo
    >>> folder = f"{tempfile.mkdtemp()}/run"
    >>> run = zoo.evaluate("efficientnet_lite0", "digits", per_class=2, epochs=0, layer_curve=False, out=folder)
    >>> run.record.status
    'finished'
    """
    return _fine_tune(False, backbone, dataset, progress, checked(EvalOptions, options))


def train(
    backbone: str | Backbone | Run | None = None,
    dataset: str | Dataset | None = None,
    *,
    progress: bool | Reporter = False,
    **options: Unpack[TrainOptions],
) -> Run:
    """Train a whole network from scratch: choose the epoch on a held-out part, and test once at the end.

    The arguments are those of :func:`evaluate`, and ``options`` those of ``zoo train``.
    """
    given = checked(TrainOptions, options)
    return _fine_tune(True, backbone, dataset, progress, given)  # type: ignore[arg-type]


def dataset_stats(
    dataset: str | Dataset, *, progress: bool | Reporter = False, **options: Unpack[StatsOptions]
) -> DatasetStatistics:
    """Measure a dataset, split by split: mean and standard deviation, sizes, classes, equal images and brightness.

    Every image is read at its own size. ``options`` are those of ``zoo stats``; with ``per_class``, ``limit`` and
    ``seed`` the images are those of a run with the same options. Raises a :class:`~zoo.ZooError` for unreadable data.

    >>> import zoo
    >>> zoo.dataset_stats("digits").splits["train"].size
    (8, 8)
    """
    from zoo_harness.runs.request import choose_data

    given = with_defaults(StatsOptions, checked(StatsOptions, options))
    request = choose_data(dataset, {**given, "val_fraction": None})

    from zoo_harness.data.dataset_statistics import measure_dataset  # and with it torch, which takes seconds

    with _reporter(progress) as reporter:
        where = request.dataset, request.argument, request.data_dir, request.subset
        record, warnings_found = measure_dataset(*where, request.reading, reporter)
        for line in warnings_found:
            reporter.warn(line)
    return record


def layers(
    backbones: str | Backbone | Run | Path | Sequence[str | Backbone | Run | Path],
    dataset: str | Dataset = "digits",
    *,
    progress: bool | Reporter = False,
    **options: Unpack[LayersOptions],
) -> LayerScoring:
    """Score every feature layer of backbones and runs, from the pixels to the classifier's input.

    ``backbones`` is a name, a record, a run, or the path of a run directory, or a sequence of these. ``options`` are
    those of ``zoo layers``.
    """
    from zoo_harness.runs.request import check_layers

    given = checked(LayersOptions, options)
    several = list(backbones) if isinstance(backbones, Sequence) and not isinstance(backbones, str) else [backbones]
    named: list[str | Backbone] = [each for each in several if isinstance(each, str | Backbone)]
    runs = [_directory(each) for each in several if not isinstance(each, str | Backbone)]
    request = check_layers(named, runs, dataset, given, _command("layers", (several, dataset), given))

    with _reporter(progress) as reporter:
        from zoo_harness.runs.opening import open_layers  # imports numpy

        request = open_layers(request, reporter)
        from zoo_harness.runs.layer_run import score_all_layers  # and with it torch, which takes seconds

        return score_all_layers(request, reporter)


def features(
    backbone: str | Backbone | Run | Path,
    dataset: str | Dataset | None = None,
    *,
    progress: bool | Reporter = False,
    **options: Unpack[FeaturesOptions],
) -> Features:
    """Read the features of a dataset's images from one or several layers of a backbone or a run.

    ``backbone`` is a name, a record, a run, the path of a run directory, or ``OWNER/NAME[@REV]`` on the Hub. A run
    needs no ``dataset``: without one it is the part of the data that the run used. ``options`` are those of
    ``zoo features``. With ``out`` the features are written to that file, and memory holds a batch of them at a time;
    otherwise they are returned in memory.

    >>> import zoo
    >>> data = zoo.features("efficientnet_lite0", "digits", per_class=2)
    >>> features, labels = data.train
    >>> features.shape, labels.shape, data.class_names[:3]
    ((20, 1280), (20,), ('0', '1', '2'))
    """
    from zoo_harness.runs.features_request import check_features

    given = checked(FeaturesOptions, options)
    with _reporter(progress) as reporter:
        request = check_features(_subject(backbone, reporter), dataset, given)

        from zoo_harness.runs.features_run import read_features  # and with it torch, which takes seconds

        return read_features(request, reporter)


def rank(
    dataset: str | Dataset | None = None,
    backbones: str | Backbone | Run | Path | Sequence[str | Backbone | Run | Path] = (),
    *,
    progress: bool | Reporter = False,
    **options: Unpack[RankOptions],
) -> Ranking:
    """Rank backbones by how well their features separate the classes of a training split, before training any.

    ``dataset`` is ``"digits"`` by default. ``backbones`` is a name, a glob such as ``"timm:vit_*_dinov2*"``, a record,
    a run or its path, or a sequence of these; without any, those whose weights are on this machine are ranked.
    ``options`` are those of ``zoo rank``. A backbone that fails is left out and listed in ``record.failures``.
    """
    from zoo_harness.runs.rank_request import check_rank

    given = checked(RankOptions, options)
    single = isinstance(backbones, str) or not isinstance(backbones, Sequence)
    given_backbones: Sequence[Any] = [backbones] if single else list(backbones)  # type: ignore[arg-type]
    several = [each if isinstance(each, str | Backbone) else _directory(each) for each in given_backbones]
    request = check_rank(dataset, several, given, _command("rank", (dataset, several), given))

    with _reporter(progress) as reporter:
        from zoo_harness.runs.opening import open_ranking

        open_ranking(request, reporter)
        from zoo_harness.runs.rank_run import rank_backbones  # and with it torch, which takes seconds

        return rank_backbones(request, reporter)


def compare(
    runs: str | Path | Run | Sequence[str | Path | Run],
    *,
    baseline: str | Path | Run | None = None,
    published: bool = False,
    group_by: str = "settings",
) -> Comparison:
    """Put the figures of finished runs beside each other and test their differences, as ``zoo compare`` does.

    ``runs`` are runs, the paths of their directories, or folders with runs. A run that is unfinished or damaged is left
    out and listed in ``left_out``. ``baseline`` is the run that the others are compared with, by default the best on
    the same images. ``published`` adds the published figures of the same backbone and dataset. ``group_by``: runs that
    share this are one row: ``settings`` (all but the seed), ``none``, or some of ``backbone``, ``recipe``, ``dataset``,
    ``split`` and ``epochs``, separated by commas.
    """
    from zoo_harness.runs.compare import compare_runs

    several = isinstance(runs, Sequence) and not isinstance(runs, str)
    given: list[str | Path | Run] = list(runs) if several else [runs]  # type: ignore[arg-type, list-item]
    return compare_runs(given, baseline=baseline, published=published, group_by=group_by)


def sweep(
    plan: str | Path | Mapping[str, Any] | None = None, *, progress: bool = False, **options: Unpack[SweepOptions]
) -> Sweep:
    """Run every combination of backbones, datasets, recipes, seeds and options of a plan.

    ``plan`` is the path of a TOML file, or a mapping with its keys, such as ``{"backbones": ["resnet18"], "datasets":
    ["digits"], "seeds": [0, 1], "epochs": 5}``. ``options`` are those of ``zoo sweep``. Finished runs are skipped, and
    begun ones are resumed. A run that fails is listed in ``failed`` of the result, and the others continue. A
    ``KeyboardInterrupt`` leaves runs that the same call continues.
    """
    from zoo_harness.sweeps.sweep import run_sweep

    return run_sweep(plan, checked(SweepOptions, options), shown=progress)


def rescore(
    run: str | Path | Run,
    /,
    dataset: str | Dataset | None = None,
    *,
    progress: bool | Reporter = False,
    **options: Unpack[RescoreOptions],
) -> RescoreRecord:
    """Score a checkpoint again, and compare each figure with that of its record.

    ``run`` is a run, its path, or ``OWNER/NAME[@REV]`` on the Hub. Without ``dataset`` the data are those of the
    record. ``options`` are those of ``zoo eval CHECKPOINT --epochs 0``.
    """
    from zoo_harness.runs.request import check_checkpoints, check_rescore

    given = checked(RescoreOptions, options)
    check_rescore(dataset, given)
    with _reporter(progress) as reporter:
        found = _checkpoint(run, reporter)
        check_checkpoints([found.folder], given.get("checkpoint"))
        from zoo_harness.runs.opening import open_rescoring  # imports numpy

        request = open_rescoring(found, dataset, given, reporter)

        from zoo_harness.runs.rescore import rescore_checkpoint  # and with it torch, which takes seconds

        return rescore_checkpoint(request, reporter)


def score_features(
    file: str | Path, *, progress: bool | Reporter = False, **options: Unpack[SeparationOptions]
) -> Separation:
    """Score how well the features in a file separate the classes.

    ``file`` is an ``.npz``, ``.npy``, ``.safetensors``, ``.parquet``, ``.arrow``, ``.feather``, ``.csv`` or ``.tsv``
    file. ``options`` are those of ``zoo si``; for arrays in memory there is :func:`zoo.separation`. Columns that may be
    row numbers cause a warning.
    """
    from zoo_harness.separation.file_kinds import check_file

    given = checked(SeparationOptions, options)
    check_file(Path(file), given)

    from zoo_harness.separation.files import score_file  # and with it torch, which takes seconds

    with _reporter(progress) as reporter:
        # The logger is silent by default, but a column of row numbers makes the scores wrong.
        warn = partial(warnings.warn, stacklevel=4) if progress is False else reporter.warn
        return score_file(Path(file), given, reporter.log, warn)


def publish(
    run: str | Path | Run, to: str | Path, *, progress: bool | Reporter = False, **options: Unpack[PublishOptions]
) -> Publication:
    """Publish a finished run, on the Hub (``OWNER/NAME``) or into a folder (``./FOLDER``), after proof that it loads.

    A :class:`~pathlib.Path` is always a folder.
    ``options`` are those of ``zoo publish``. The token is the one of ``HF_TOKEN``, or of the Hub's login.
    """
    from zoo_harness.hub.publish import publish_run

    given = checked(PublishOptions, options)
    with _reporter(progress) as reporter:
        place = str(to.absolute()) if isinstance(to, Path) else to
        return publish_run(_directory(run), place, given, reporter.log, show_bars=progress is not False)


def pull(repository: str, to: str | Path | None = None, *, progress: bool | Reporter = False) -> Run:
    """Fetch a published checkpoint, ``OWNER/NAME`` or ``OWNER/NAME@REV``, and verify all of it.

    It is copied to the folder ``to``, or stays in the Hub's cache; ``run.commit`` says which commit it is. Raises a
    :class:`~zoo.ZooError` if it cannot be fetched, or differs from its record.
    """
    from zoo_harness.hub.client import without_bars
    from zoo_harness.hub.locate import pull_checkpoint
    from zoo_harness.records.run import read_run
    from zoo_harness.runs.run import Run

    with _reporter(progress) as reporter, without_bars() if progress is False else nullcontext():
        folder, commit = pull_checkpoint(repository, to, reporter.log)
    return Run(folder, read_run(folder), commit)


def load(
    path_or_repository: str | Path | Run,
    device: str = "cpu",
    *,
    checkpoint: str | int | None = None,
    epoch: int | None = None,
) -> LoadedModel:
    """Load the fine-tuned model of a run directory or of a published repository, in inference mode.

    A string that names an existing folder is a path; any other is ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the Hub,
    fetched once and then read from the Hub's cache. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. No code of
    the repository is executed. ``checkpoint`` (``"best"`` or ``"last"``) or ``epoch`` names other weights that the run
    kept; ``model.epoch`` and the scores in ``model.record`` are then theirs. Raises
    :class:`~zoo.errors.UsageError` if there is no finished checkpoint, or not the named one, and
    :class:`~zoo.errors.WeightsError` if the file is not the one that the run wrote, does not fit the network, or
    contradicts the published ``config.json``.
    """
    from zoo_harness.checkpoints.opened import open_checkpoint
    from zoo_harness.hub.locate import find_checkpoint
    from zoo_harness.records.option_checks import check_device
    from zoo_harness.runs.request import check_checkpoints

    check_device(device)
    if device.startswith("cuda"):
        _choose_device(device)  # before anything is fetched
    named = path_or_repository if isinstance(path_or_repository, str | Path) else path_or_repository.directory
    place = find_checkpoint(named).path
    check_checkpoints([place], checkpoint, epoch)
    opened = open_checkpoint(place)

    from zoo_harness.checkpoints.load import load_folder  # and with it torch, which takes seconds

    return load_folder(opened, _choose_device(device), checkpoint=checkpoint, epoch=epoch)


def _choose_device(name: str) -> torch.device:
    from zoo_harness.compute.device import choose_device  # and with it torch, which takes seconds

    return choose_device(name)


def _subject(backbone: str | Backbone | Run | Path, reporter: Reporter) -> Backbone | Checkpoint:
    """Return a backbone, or the folder of a checkpoint, fetched if necessary."""
    from zoo.registry import load_registry
    from zoo_harness.hub.locate import names_a_checkpoint

    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, str) and not names_a_checkpoint(backbone):
        return load_registry().backbone(backbone)
    return _checkpoint(backbone, reporter)


def _checkpoint(given: str | Path | Run, reporter: Reporter) -> Checkpoint:
    from zoo_harness.hub.locate import find_checkpoint
    from zoo_harness.runs.request import Checkpoint

    place = find_checkpoint(given if isinstance(given, str | Path) else _directory(given), reporter.log)
    return Checkpoint(place.path, str(place.reference or place.path), place.commit)


def _fine_tune(
    from_scratch: bool,
    backbone: str | Backbone | Run | None,
    dataset: str | Dataset | None,
    progress: bool | Reporter,
    given: EvalOptions,
) -> Run:
    from zoo_harness.runs.fine_tune import fine_tune
    from zoo_harness.runs.request import RunCall

    command = _command("train" if from_scratch else "evaluate", (backbone, dataset), given)
    if backbone is not None and not isinstance(backbone, str | Backbone):
        backbone, given = _from_run(backbone, given)
    with _reporter(progress) as reporter:
        return fine_tune(RunCall(backbone, dataset, given, command, from_scratch), reporter)


def _from_run(run: Run, given: EvalOptions) -> tuple[str, EvalOptions]:
    """Return the backbone of a run, and the options with the run's checkpoint as the initial weights."""
    from zoo.registry import load_registry

    directory, name = _directory(run), run.record.backbone.name
    if given.get("epochs") == 0:
        message = f"a run with --epochs 0 would get a new, untrained head: {directory}; try zoo.rescore(run)"
        raise UsageError(message, code="run-needs-rescore", path=directory)
    if not load_registry().knows(name):
        message = (
            f"the run's backbone is not registered: {name!r}; pass its record: zoo.evaluate(backbone, "
            f"weights={str(directory)!r})"
        )
        raise UsageError(message, code="run-needs-backbone", name=name)
    return name, {"weights": directory, **given}


def _directory(run: object) -> Path:
    """The directory of a run or a path."""
    if isinstance(run, str | Path):
        return Path(run)
    directory = getattr(run, "directory", None)
    if not isinstance(directory, Path):
        raise UsageError(f"not a run: {run!r:.100}; expected a zoo.Run or a path", code="not-a-run")
    return directory


def _reporter(progress: bool | Reporter) -> AbstractContextManager[Reporter]:
    from zoo_harness.runs.reporter import LoggingReporter

    if not isinstance(progress, bool):
        if missing := [name for name in ("stage", "advance", "log", "warn", "on_epoch") if not hasattr(progress, name)]:
            raise UsageError(
                f"progress is wrong: {progress!r:.100} has no {missing[0]}(); expected True, False or a zoo.Reporter",
                code="progress-type",
                given=type(progress).__name__,
            )
        return nullcontext(progress)
    if not progress:
        return nullcontext(LoggingReporter())
    from zoo_harness.runs.display import ProgressDisplay

    return ProgressDisplay()


def _command(function: str, arguments: Sequence[object], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that the record of a run shows: the command line, or the call in Python."""
    from zoo_harness.util.invocation import COMMAND

    shown = [*map(_shown, arguments), *(f"{name}={_shown(value)}" for name, value in given.items())]
    return COMMAND.get() or (f"zoo.{function}({', '.join(shown)})",)


def _shown(value: object) -> str:
    if isinstance(value, Backbone | Dataset):
        return f"<{type(value).__name__} {value.name}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(str(value) if isinstance(value, Path) else value)[:200]
