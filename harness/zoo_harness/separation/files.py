"""Score features and labels from array files and tables; nothing in them is unpickled or executed.

The first bytes of a file decide how it is read, because its ending may be wrong. ``.npz`` and ``.safetensors`` hold
both arrays by name; ``.npy`` holds one array; :mod:`zoo_harness.separation.tables` reads the others.
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
    """Features (N, D) and labels (N,) of a file; its kind, such as ".npz"; and the columns of features of a table.

    ``class_names``: the name of each label, by label, if the file has names. ``from_text``: whether the labels are
    text in the file, so that their numbers mean nothing without the names. Of a file of ``zoo features``: ``split``,
    and ``source``, the layer and the digest of its network.
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
    """Score the features of a file, against each other or against the references of another file.

    Without an order it is 2, or 1 if each sample has a single neighbour. ``log`` and ``warn`` take the lines that say
    which columns of a table are the features, and which features may be row numbers.
    """
    references, labels_name = given.get("references"), given.get("reference_labels")
    if labels_name is not None and references is None:
        message = f"--reference-labels is unused: {labels_name!r}; expected --references FILE with it"
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

    ``features`` and ``labels``: their names in the file, by default "features" and "labels"; for a table, and for
    ``exclude``, see :func:`~zoo_harness.separation.tables.columns_of`. For ``.npy``, ``labels`` is another ``.npy``
    file. ``least``: the smallest number of samples accepted. ``columns``: the columns of features to read of a table.
    ``split``: the split to read of a file of ``zoo features``; without it the ``preferred`` one, if the file has both.
    Raises a :class:`~zoo.errors.ZooError` whose ``facts["path"]`` is the file at fault.
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
            message = f"--split is unused: {split!r}; expected a file of 'zoo features', which names the split of rows"
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
    """Read the references; of a table, the columns that the samples have, because their order may differ."""
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
    """Read one layer and one split of a file of ``zoo features``."""
    for option, value in unused.items():
        if value is not None:
            message = f"--{option} is unused: {value!r}; a file of 'zoo features' says which are the labels"
            raise UsageError(message, code="option-unused", option=option)
    layer = feature_metadata.choose_layer(record, features)
    split = feature_metadata.choose_split(record, split, preferred)
    given, labels = feature_files.read_rows(path, kind, record, layer.array, split)
    others = f" of {record.rows:,}" if len(record.splits) > 1 else ""
    log(f"features of {path}: layer {layer.layer} of {record.network}, {split} split, {len(labels):,}{others} rows")
    checked, source = checked_features(given, least=least), (layer.layer, record.tensors_sha256)
    return Samples(checked, checked_labels(labels, checked), kind, (), record.class_names, False, split, source)


def _check_references(path: Path, samples: Samples, references_path: Path, references: Samples) -> None:
    """Refuse references that are the samples themselves, or features of another layer or network."""
    if samples.split is not None and samples.split == references.split and references_path.samefile(path):
        message = f"the references are the samples themselves: the {samples.split} split of {path}"
        raise UsageError(
            f"{message}; expected other samples; try --split test, or another file", code="references-are-samples"
        )
    if None not in (samples.source, references.source) and samples.source != references.source:
        message = f"features of the references are of another layer or network: {references_path}"
        raise UsageError(f"{message}; expected those of {path}", code="references-differ", path=references_path)


def _same_classes(samples: Samples, references: Samples, path: Path) -> tuple[Samples, Samples]:
    """Return both with the same number for each class name, if they have names."""
    if samples.class_names == references.class_names:
        return samples, references
    if not (samples.class_names and references.class_names):
        if not (samples.from_text or references.from_text):
            return samples, references
        kinds = [("text" if each.from_text else "numbers") for each in (samples, references)]
        message = f"labels differ in kind: {kinds[0]} of the samples, {kinds[1]} of the references"
        raise UsageError(f"{path}: {message}; expected one kind", code="labels-differ", path=path)
    names = tuple(sorted({*samples.class_names, *references.class_names}))

    def numbered(part: Samples) -> Samples:
        place = torch.tensor([names.index(name) for name in part.class_names])
        return replace(part, labels=place[part.labels], class_names=names)

    return numbered(samples), numbered(references)


def _warn_of_row_numbers(path: Path, samples: Samples, warn: Writer) -> None:
    """Warn of features that may be row numbers; those of arrays and lists have an index instead of a name."""
    named = len(samples.columns) == samples.features.shape[1]
    found = [samples.columns[index] if named else str(index) for index in row_numbers(samples.features)]
    if found:
        fault = "their whole numbers all differ and are in order or without gaps"
        option = f" with --exclude {','.join(found)}" if named else ""
        warn(f"columns of {path} may be row numbers: {short_list(found)}; {fault}; try to leave them out{option}")


def _read_table(
    path: Path, kind: str, features: str | Sequence[str] | None, labels: str | None, exclude: str | None, log: Writer
) -> tuple[Array, Tensor, tuple[str, ...], Sequence[str]]:
    with path.open("rb") as file:
        table = _TABLES[kind](file)
    found = tables.columns_of(table, features, labels, exclude)
    log(f"features of {path}: {short_list(found.columns)}")
    if found.left_out:
        log(f"left out of {path}: {by_reason(found.left_out)}")
    return found.features, found.labels, found.class_names, found.columns


def _read_npy(path: Path, features: str | None, labels: str | None) -> tuple[Array, Array]:
    if features is not None:
        message = f"--features is unused: {features!r}; an .npy file holds one array without a name"
        raise UsageError(message, code="option-unused", option="features")
    if labels is None:
        raise missing_labels(path, "labels")
    array = open_memmap(path, mode="r")
    other = expanded(Path(labels))
    with blaming(other):
        if kind_of(other) != ".npy":
            message = f"the file of labels has the content of {kind_of(other)}; expected .npy, as for the features"
            raise DataError(message, code="labels-not-npy")
        return array, open_memmap(other, mode="r")


def _read_npz(path: Path, features: str | None, labels: str | None) -> tuple[Array, Array]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # numpy leaves damaged files open
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
