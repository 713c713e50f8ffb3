"""Define the functions that ``zoo`` exports from the harness; each function imports large packages when called."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
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
    from zoo_harness.runs.report import Report as Report
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
    """Fine-tune one block of a backbone on a dataset, score the network, and write a checkpoint, a card and plots.

    ``backbone`` is a name, a :class:`~zoo.Backbone` that need not be registered, or a run. If ``backbone`` is a run,
    its checkpoint provides the initial weights, and the network gets a new head; :func:`rescore` scores a run without
    training. ``dataset`` is a name such as ``"cifar10"`` or ``"imagefolder:photos"``, or a :class:`~zoo.Dataset` such
    as :func:`zoo.in_memory` returns. ``options`` have the names, types and defaults of the options of ``zoo eval``.
    ``progress=True`` shows progress bars and epochs on standard error; ``progress`` may also be a
    :class:`~zoo.Reporter`.

    Without ``progress``, the function prints nothing, and messages go to the logger ``zoo``. The function restores the
    caller's random generators, threads and signal handlers. Raises a :class:`~zoo.ZooError` for every mistake. After a
    ``KeyboardInterrupt``, ``zoo.evaluate(resume=RUN)`` continues the run and ends with the same bits as an
    uninterrupted run.

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
    """Train a whole network from scratch, choose the best epoch on held-out images, and score the test split once.

    The function has the arguments of :func:`evaluate`, and takes the options of ``zoo train``.
    """
    given = checked(TrainOptions, options)
    return _fine_tune(True, backbone, dataset, progress, given)  # type: ignore[arg-type]


def dataset_stats(
    dataset: str | Dataset, *, progress: bool | Reporter = False, **options: Unpack[StatsOptions]
) -> DatasetStatistics:
    """Measure each split of a dataset: mean and standard deviation, sizes, classes, duplicate images and brightness.

    zoo reads every image at its original size. The function takes the options of ``zoo stats``. With ``per_class``,
    ``limit`` and ``seed``, it measures the images that a run with the same options uses. Raises a
    :class:`~zoo.ZooError` for unreadable data.

    >>> import zoo
    >>> zoo.dataset_stats("digits").splits["train"].size
    (8, 8)
    """
    from zoo_harness.runs.request import choose_data

    given = with_defaults(StatsOptions, checked(StatsOptions, options))
    request = choose_data(dataset, {**given, "val_fraction": None})

    from zoo_harness.data.dataset_statistics import measure_dataset  # imports torch, which takes seconds

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

    ``backbones`` is a backbone name, a :class:`~zoo.Backbone`, a run, the path of a run folder, or a sequence of such
    values. The function takes the options of ``zoo layers``.
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
        from zoo_harness.runs.layer_run import score_all_layers  # imports torch, which takes seconds

        return score_all_layers(request, reporter)


def features(
    backbone: str | Backbone | Run | Path,
    dataset: str | Dataset | None = None,
    *,
    progress: bool | Reporter = False,
    **options: Unpack[FeaturesOptions],
) -> Features:
    """Compute the features of a dataset's images in one or several layers of a backbone or a run.

    ``backbone`` is a backbone name, a :class:`~zoo.Backbone`, a run, the path of a run folder, or ``OWNER/NAME[@REV]``
    on the Hugging Face Hub. For a run, ``dataset`` is by default the images that the run used. The function takes the
    options of ``zoo features``. With ``out``, the function writes the features to that file and keeps only one batch in
    memory. Without ``out``, it returns the features in memory.

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

        from zoo_harness.runs.features_run import read_features  # imports torch, which takes seconds

        return read_features(request, reporter)


class _Default(str):
    """The name of a dataset that the caller did not give."""


DEFAULT_RANKED = _Default("digits")


def rank(
    dataset: str | Dataset = DEFAULT_RANKED,
    backbones: str | Backbone | Run | Path | Sequence[str | Backbone | Run | Path] = (),
    *,
    progress: bool | Reporter = False,
    **options: Unpack[RankOptions],
) -> Ranking:
    """Rank backbones, without training, by how well their features separate the classes of the training split.

    ``dataset`` is ``"digits"`` by default. ``backbones`` is a backbone name, a pattern such as
    ``"timm:vit_*_dinov2*"``, a :class:`~zoo.Backbone`, a run or its path, or a sequence of such values. By default, the
    function ranks every backbone whose weights are on this machine. The function takes the options of ``zoo rank``.
    If a backbone fails, ``record.failures`` lists it and the ranking continues.
    """
    from zoo_harness.runs.rank_request import check_rank
    from zoo_harness.runs.request import find_dataset

    given = checked(RankOptions, options)
    single = isinstance(backbones, str) or not isinstance(backbones, Sequence)
    chosen = None if isinstance(dataset, _Default) else dataset
    if chosen is not None or dataset is None:
        find_dataset(dataset)  # None is refused, because the caller's dataset may be missing by mistake
    given_backbones: Sequence[Any] = [backbones] if single else list(backbones)  # type: ignore[arg-type]
    several = [each if isinstance(each, str | Backbone) else _directory(each) for each in given_backbones]
    request = check_rank(chosen, several, given, _command("rank", (chosen, several), given))

    with _reporter(progress) as reporter:
        from zoo_harness.runs.opening import open_ranking

        open_ranking(request, reporter)
        from zoo_harness.runs.rank_run import rank_backbones  # imports torch, which takes seconds

        return rank_backbones(request, reporter)


def compare(
    runs: str | Path | Run | Sequence[str | Path | Run],
    *,
    baseline: str | Path | Run | None = None,
    published: bool = False,
    group_by: str = "settings",
    progress: bool | Reporter = False,
) -> Comparison:
    """Compare the results of finished runs, and test their differences, as ``zoo compare`` does.

    ``runs`` are runs, paths of run folders, folders that contain runs, or ``OWNER/NAME[@REV]`` on the Hub. zoo
    downloads the record and the predictions of a Hub repository. The comparison excludes unfinished, damaged and
    missing runs, and lists them in ``left_out``. ``baseline`` is the run with which all other runs are compared, by
    default the best run on the same images. ``published`` adds the published results of the same backbone and dataset.
    ``group_by`` names what the runs of one row share: ``settings`` (all settings except the seed), ``none`` (one row
    per run), or some of ``backbone``, ``recipe``, ``dataset``, ``split`` and ``epochs``, separated by commas.
    """
    from zoo_harness.runs.compare import compare_runs

    several = isinstance(runs, Sequence) and not isinstance(runs, str)
    given: list[str | Path | Run] = list(runs) if several else [runs]  # type: ignore[arg-type, list-item]
    with _reporter(progress) as reporter:
        opening = partial(_open_or_fetch, say=reporter.log)
        return compare_runs(given, opening, baseline=baseline, published=published, group_by=group_by)


def report(
    runs: str | Path | Run | Sequence[str | Path | Run] = "runs",
    *,
    out: str | Path = "report.html",
    progress: bool | Reporter = False,
) -> Report:
    """Write one HTML file that compares finished runs: table, paired tests, charts, confusion, and rankings.

    ``runs`` are runs, paths of run folders, folders that contain runs and rankings, or ``OWNER/NAME[@REV]`` on the Hub.
    zoo downloads the record and the predictions of a Hub repository. ``out`` is the HTML file to write; an earlier
    report is overwritten. The file needs no network, and the same runs give the same bytes. The report excludes
    unfinished, damaged and missing runs, and lists them on the page and in ``left_out``.
    """
    from zoo_harness.runs.report import write_report

    several = isinstance(runs, Sequence) and not isinstance(runs, str)
    given: list[str | Path | Run] = list(runs) if several else [runs]  # type: ignore[arg-type, list-item]
    with _reporter(progress) as reporter:
        return write_report(given, Path(out).expanduser(), partial(_open_or_fetch, say=reporter.log))


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
    """Score a checkpoint again, and compare each result with the recorded result.

    ``run`` is a run, its path, or ``OWNER/NAME[@REV]`` on the Hugging Face Hub. ``dataset`` is by default the recorded
    dataset. The function takes the options of ``zoo eval CHECKPOINT --epochs 0``.
    """
    from zoo_harness.runs.request import check_checkpoints, check_rescore

    given = checked(RescoreOptions, options)
    check_rescore(dataset, given)
    with _reporter(progress) as reporter:
        found = _checkpoint(run, reporter)
        check_checkpoints([found.folder], given.get("checkpoint"))
        from zoo_harness.runs.opening import open_rescoring  # imports numpy

        request = open_rescoring(found, dataset, given, reporter)

        from zoo_harness.runs.rescore import rescore_checkpoint  # imports torch, which takes seconds

        return rescore_checkpoint(request, reporter)


def score_features(
    file: str | Path, *, progress: bool | Reporter = False, **options: Unpack[SeparationOptions]
) -> Separation:
    """Score how well the features in a file separate the classes.

    ``file`` is an ``.npz``, ``.npy``, ``.safetensors``, ``.parquet``, ``.arrow``, ``.feather``, ``.csv`` or ``.tsv``
    file. The function takes the options of ``zoo si``. Use :func:`zoo.separation` for arrays in memory. The function
    warns if a column may contain row numbers.
    """
    from zoo_harness.separation.file_kinds import check_file

    given = checked(SeparationOptions, options)
    check_file(Path(file), given)

    from zoo_harness.separation.files import score_file  # imports torch, which takes seconds

    with _reporter(progress) as reporter:
        # The logger is silent by default, but a column of row numbers makes the scores wrong.
        warn = partial(warnings.warn, stacklevel=4) if progress is False else reporter.warn
        return score_file(Path(file), given, reporter.log, warn)


def publish(
    run: str | Path | Run, to: str | Path, *, progress: bool | Reporter = False, **options: Unpack[PublishOptions]
) -> Publication:
    """Check that a finished run loads, and publish it on the Hugging Face Hub (``OWNER/NAME``) or in a folder.

    If ``to`` is a :class:`~pathlib.Path`, ``to`` is a folder. The function takes the options of ``zoo publish``. zoo
    reads your access token from the variable ``HF_TOKEN``, or from the login of ``hf auth login``.
    """
    from zoo_harness.hub.publish import publish_run

    given = checked(PublishOptions, options)
    with _reporter(progress) as reporter:
        place = str(to.absolute()) if isinstance(to, Path) else to
        return publish_run(_directory(run), place, given, reporter.log, show_bars=progress is not False)


def pull(repository: str, to: str | Path | None = None, *, progress: bool | Reporter = False) -> Run:
    """Download a published checkpoint, ``OWNER/NAME`` or ``OWNER/NAME@REV``, and verify all its files.

    With ``to``, the function copies the checkpoint to that folder; otherwise the checkpoint stays in the cache of the
    Hub. ``run.commit`` is the commit of the checkpoint. Raises a :class:`~zoo.ZooError` if the checkpoint cannot
    be downloaded, or differs from its record.
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
    """Load the fine-tuned model of a run folder or of a published repository, in inference mode.

    A string that names an existing folder is a path. Any other string is ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on
    the Hugging Face Hub; zoo downloads the repository once and then reads it from the cache of the Hub. zoo executes no
    code of the repository. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. ``checkpoint`` (``"best"`` or
    ``"last"``) or ``epoch`` selects another checkpoint that the run saved. ``model.epoch`` and the scores in
    ``model.record`` then belong to that checkpoint.

    Raises :class:`~zoo.errors.UsageError` if the run is not finished or did not save the selected checkpoint. Raises
    :class:`~zoo.errors.WeightsError` if the weight file has changed since the run, does not fit the network, or
    contradicts the published ``config.json``.
    """
    from zoo_harness.checkpoints.opened import open_checkpoint
    from zoo_harness.hub.locate import find_checkpoint
    from zoo_harness.records.option_checks import check_device
    from zoo_harness.runs.request import check_checkpoints

    check_device(device)
    if device.startswith("cuda"):
        _choose_device(device)  # an absent GPU must be an error before zoo downloads anything
    named = path_or_repository if isinstance(path_or_repository, str | Path) else path_or_repository.directory
    place = find_checkpoint(named).path
    check_checkpoints([place], checkpoint, epoch)
    opened = open_checkpoint(place)

    from zoo_harness.checkpoints.load import load_folder  # imports torch, which takes seconds

    return load_folder(opened, _choose_device(device), checkpoint=checkpoint, epoch=epoch)


def _choose_device(name: str) -> torch.device:
    from zoo_harness.compute.device import choose_device  # imports torch, which takes seconds

    return choose_device(name)


def _subject(backbone: str | Backbone | Run | Path, reporter: Reporter) -> Backbone | Checkpoint:
    """Return the named backbone, or the folder of the named checkpoint, which is downloaded if necessary."""
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
    """Return the backbone of a run, and the options with the checkpoint of the run as the initial weights."""
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


def _open_or_fetch(named: str | Path, say: Callable[[str], None]) -> Run:
    """Open a run in a folder, or download the record and the predictions of the Hub repository ``OWNER/NAME[@REV]``."""
    from zoo_harness.hub.locate import fetch_record
    from zoo_harness.runs.run import Run, open_run

    if isinstance(named, Path) or os.path.exists(os.path.expanduser(named)):  # noqa: PTH110, PTH111 - they never raise
        return open_run(named)
    return Run(*fetch_record(named, say))


def _directory(run: object) -> Path:
    """Return the folder of a run, which is given as a run or as a path."""
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
    """Return the command that the record of a run stores: the command line, or the Python call."""
    from zoo_harness.util.invocation import COMMAND

    shown = [*map(_shown, arguments), *(f"{name}={_shown(value)}" for name, value in given.items())]
    return COMMAND.get() or (f"zoo.{function}({', '.join(shown)})",)


def _shown(value: object) -> str:
    if isinstance(value, Backbone | Dataset):
        return f"<{type(value).__name__} {value.name}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(str(value) if isinstance(value, Path) else value)[:200]
