"""Compute the Separation Index of features and labels in array files and tables, without unpickling any data.

The format of a file is detected from its first bytes, because its file name extension may be wrong. Files in the
formats ``.npz`` and ``.safetensors`` hold features and labels as two named arrays. An ``.npy`` file holds only one
array. The module :mod:`zoo_harness.separation.tables` reads tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib.format import open_memmap

from zoo.errors import DataError, UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SeparationOptions
from zoo_harness.separation import feature_files, feature_metadata, tables
from zoo_harness.separation.bookkeeping import by_reason, row_numbers, short_list
from zoo_harness.separation.file_kinds import ENDINGS, blaming, chosen_names, expanded, kind_of, missing_labels
from zoo_harness.separation.index import separation
from zoo_harness.separation.scores import too_few_per_class
from zoo_harness.separation.validation import Array, checked_features, checked_labels, named_labels

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_harness.records.features import FeaturesRecord
    from zoo_harness.separation.result import Separation

    Writer = Callable[[str], object]

_TABLES = {".parquet": tables.read_parquet, ".arrow": tables.read_arrow, ".csv": tables.read_text}


@dataclass(frozen=True, eq=False)
class Samples:
    """The features (N, D) and labels (N,) read from a file.

    ``kind``: the file format, such as ".npz". ``columns``: the names of a table's feature columns. ``class_names``: the
    class name of each label, indexed by label; empty if the file has no class names. ``from_text``: whether the file
    stores labels as text, so that the integer labels mean nothing without ``class_names``. ``split`` and ``source`` are
    set only for files that ``zoo features`` has written. ``source`` holds the name of the layer and the digest of the
    network.
    """

    features: Tensor
    labels: Tensor
    kind: str
    columns: Sequence[str] = ()
    class_names: tuple[str, ...] = ()
    from_text: bool = False
    split: str | None = None
    source: tuple[str, str] | None = None


def score_file(file: Path, given: SeparationOptions, log: Writer, warn: Writer) -> Separation:
    """Compute the Separation Index family for a file's samples, with neighbours from this file or from another file.

    The default order is 2, or 1 if there is only one candidate neighbour. The function calls ``log`` with a line that
    lists the feature columns of a table. The function calls ``warn`` with warnings, for example about columns that may
    be row numbers.
    """
    references, labels_name = given.get("references"), given.get("reference_labels")
    if labels_name is not None and references is None:
        message = f"--reference-labels is unused: {labels_name!r}; try to add --references FILE"
        raise UsageError(message, code="option-unused", option="reference_labels")

    file, options = expanded(file), with_defaults(SeparationOptions, given)
    per_class = options["per_class"]
    samples = read_samples(
        file, options["features"], options["labels"], options["exclude"], split=options["split"], log=log
    )
    _warn_of_row_numbers(file, samples, warn)
    candidates = (len(samples.labels) if per_class is None else per_class * len(samples.labels.unique())) - 1
    compared = None
    if references is not None:
        references = expanded(references)
        compared = _read_references(references, labels_name, samples, options, log)
        _check_references(file, samples, references, compared)
        samples, compared = _same_classes(samples, compared, references)
        candidates = len(compared.labels)
    found = separation(
        samples.features,
        samples.labels,
        options["order"] or max(1, min(2, candidates)),
        references=None if compared is None else compared.features,
        reference_labels=None if compared is None else compared.labels,
        metric=options["metric"],
        normalize=options["normalize"] == "zscore",
        per_class=per_class,
        seed=options["seed"],
        memory_budget=options["memory"] * 2**20,
    )
    if compared is None:
        counts = {
            samples.class_names[int(label)] if samples.class_names else label: count
            for label, count in found.classes.items()
        }
        for line in too_few_per_class(str(file), counts, found.order, "sample"):
            warn(line)
    return replace(found, class_names=samples.class_names)


def read_samples(
    path: Path,
    features: str | None = None,
    labels: str | None = None,
    exclude: str | None = None,
    *,
    log: Writer,
    least: int = 2,
    columns: Sequence[str] = (),
    split: str | None = None,
    preferred: str = "test",
) -> Samples:
    """Read and check the features and labels of a file.

    ``features`` and ``labels``: the names of the arrays in the file, by default "features" and "labels". If ``path`` is
    an ``.npy`` file, ``labels`` is the path of another ``.npy`` file. For tables,
    :func:`~zoo_harness.separation.tables.columns_of` explains ``features``, ``labels`` and ``exclude``. ``least``: the
    smallest number of samples accepted. ``columns``: the names of a table's columns to read as features. ``split``: the
    split to read if ``zoo features`` has written the file; by default the ``preferred`` split if the file has two
    splits. Raises a :class:`~zoo.errors.ZooError` whose ``facts["path"]`` is the faulty file.
    """
    given: Array | Tensor
    given_labels: Array | Tensor
    with blaming(path):
        kind = kind_of(path)
        if path.suffix.lower() not in ENDINGS[kind]:
            log(f"{path} is read as {kind} because of its content")
        record = feature_metadata.read_record(path, kind)
        if record is not None:
            unused = {"labels": labels, "exclude": exclude}
            return _read_features(path, kind, record, features, split, preferred, unused, least, log)
        if split is not None:
            message = f"--split is unused: {split!r}; expected a file that 'zoo features' has written"
            raise UsageError(message, code="option-unused", option="split")
        if kind in _TABLES:
            given, given_labels, names, columns = _read_table(path, kind, columns or features, labels, exclude, log)
        elif exclude is None:
            given, given_labels = _ARRAYS[kind](path, features, labels)
            given_labels, names = named_labels(given_labels)
            columns = ()
        else:
            message = f"--exclude is unused: {exclude!r}; expected a table, because only tables have columns with names"
            raise UsageError(message, code="option-unused", option="exclude")
        checked = checked_features(given, least=least)
        with blaming(expanded(Path(labels)) if kind == ".npy" and labels else path):
            return Samples(checked, checked_labels(given_labels, checked), kind, columns, names, bool(names))


def _read_references(
    path: Path, labels: str | None, samples: Samples, options: SeparationOptions, log: Writer
) -> Samples:
    """Read the reference samples. If both files are tables, read the columns with the names of the samples' columns."""
    kind = kind_of(path)
    if labels is None and kind == ".npy":
        raise missing_labels(path, "reference_labels")
    if labels is None and samples.kind != ".npy":
        labels = options["labels"]
    return read_samples(path, options["features"], labels, log=log, least=1, columns=samples.columns, preferred="train")


def _read_features(
    path: Path,
    kind: str,
    record: FeaturesRecord,
    features: str | None,
    split: str | None,
    preferred: str,
    unused: Mapping[str, str | None],
    least: int,
    log: Writer,
) -> Samples:
    """Read the features of one layer and one split from a file that ``zoo features`` has written."""
    for option, value in unused.items():
        if value is not None:
            message = f"--{option} is unused: {value!r}; the metadata of a 'zoo features' file determines the labels"
            raise UsageError(message, code="option-unused", option=option)
    layer = feature_metadata.choose_layer(record, features)
    split = feature_metadata.choose_split(record, split, preferred)
    given, labels = feature_files.read_rows(path, kind, record, layer.array, split)
    others = f" of {record.rows:,}" if len(record.splits) > 1 else ""
    log(f"features of {path}: layer {layer.layer} of {record.network}, {split} split, {len(labels):,}{others} rows")
    checked, source = checked_features(given, least=least), (layer.layer, record.tensors_sha256)
    return Samples(checked, checked_labels(labels, checked), kind, (), record.class_names, False, split, source)


def _check_references(path: Path, samples: Samples, references_path: Path, references: Samples) -> None:
    """Raise :class:`UsageError` if the references are the samples, or if their layer or network is not the samples'."""
    if samples.split is not None and samples.split == references.split and references_path.samefile(path):
        message = f"the references are the samples themselves: the {samples.split} split of {path}"
        raise UsageError(
            f"{message}; expected other samples; try --split test, or another file", code="references-are-samples"
        )
    if None not in (samples.source, references.source) and samples.source != references.source:
        message = f"the references come from another layer or network: {references_path}"
        raise UsageError(
            f"{message}; expected the layer and network of {path}", code="references-differ", path=references_path
        )


def _same_classes(samples: Samples, references: Samples, path: Path) -> tuple[Samples, Samples]:
    """Renumber the labels of samples and references so that equal class names have equal labels."""
    if samples.class_names == references.class_names:
        return samples, references
    if not (samples.class_names and references.class_names):
        if not (samples.from_text or references.from_text):
            return samples, references
        kinds = [("text" if each.from_text else "numbers") for each in (samples, references)]
        message = f"labels of samples are {kinds[0]}, but labels of references are {kinds[1]}"
        raise UsageError(f"{path}: {message}; expected text or numbers in both files", code="labels-differ", path=path)
    names = tuple(sorted({*samples.class_names, *references.class_names}))

    def numbered(part: Samples) -> Samples:
        place = torch.tensor([names.index(name) for name in part.class_names])
        return replace(part, labels=place[part.labels], class_names=names)

    return numbered(samples), numbered(references)


def _warn_of_row_numbers(path: Path, samples: Samples, warn: Writer) -> None:
    """Warn about feature columns that may be row numbers; columns without names are listed by index."""
    named = len(samples.columns) == samples.features.shape[1]
    found = [samples.columns[index] if named else str(index) for index in row_numbers(samples.features)]
    if found:
        fault = "their values are distinct whole numbers that are sorted or have no gaps"
        option = f" with --exclude {','.join(found)}" if named else ""
        warn(f"columns of {path} may be row numbers: {short_list(found)}; {fault}; try to exclude the columns{option}")


def _read_table(
    path: Path, kind: str, features: str | Sequence[str] | None, labels: str | None, exclude: str | None, log: Writer
) -> tuple[Array, Tensor, tuple[str, ...], Sequence[str]]:
    with path.open("rb") as file:
        table = _TABLES[kind](file)
    found = tables.columns_of(table, features, labels, exclude)
    log(f"features of {path}: {short_list(found.columns)}")
    if found.left_out:
        log(f"columns of {path} excluded from the features: {by_reason(found.left_out)}")
    return found.features, found.labels, found.class_names, found.columns


def _read_npy(path: Path, features: str | None, labels: str | None) -> tuple[Array, Array]:
    if features is not None:
        message = f"--features is unused: {features!r}; an .npy file holds a single array that has no name"
        raise UsageError(message, code="option-unused", option="features")
    if labels is None:
        raise missing_labels(path, "labels")
    array = open_memmap(path, mode="r")
    other = expanded(Path(labels))
    with blaming(other):
        if kind_of(other) != ".npy":
            message = f"the label file has the wrong format: {kind_of(other)}; expected .npy, as for the feature file"
            raise DataError(message, code="labels-not-npy")
        return array, open_memmap(other, mode="r")


def _read_npz(path: Path, features: str | None, labels: str | None) -> tuple[Array, Array]:
    # If a path is damaged, np.load leaves the file open. Therefore np.load gets an open file instead of a path.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        names = chosen_names(features, labels, archive.files)
        return archive[names[0]], archive[names[1]]


def _read_safetensors(path: Path, features: str | None, labels: str | None) -> tuple[Tensor, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = chosen_names(features, labels, file.keys())
        return file.get_tensor(names[0]), file.get_tensor(names[1])


_ARRAYS: dict[str, Callable[[Path, str | None, str | None], tuple[Array | Tensor, Array | Tensor]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
}
