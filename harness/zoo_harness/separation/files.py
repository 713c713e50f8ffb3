"""Score features and labels from array files and tables; nothing in them is unpickled or executed.

The first bytes of a file decide how it is read, because its ending may be wrong. ``.npz`` and ``.safetensors`` hold
both arrays by name; ``.npy`` holds one array; :mod:`zoo_harness.separation.tables` reads the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import open_memmap

from zoo.errors import DataError, UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SeparationOptions
from zoo_harness.separation import tables
from zoo_harness.separation.bookkeeping import by_reason, row_numbers, short_list
from zoo_harness.separation.file_kinds import ENDINGS, blaming, chosen_names, expanded, kind_of, missing_labels
from zoo_harness.separation.index import separation
from zoo_harness.separation.validation import Array, checked_features, checked_labels

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_harness.separation.result import Separation

    Writer = Callable[[str], object]

_TABLES = {".parquet": tables.read_parquet, ".arrow": tables.read_arrow, ".csv": tables.read_text}


@dataclass(frozen=True, eq=False)
class Samples:
    """Features (N, D) and labels (N,) of a file; its kind, such as ".npz"; and the columns of features of a table."""

    features: Tensor
    labels: Tensor
    kind: str
    columns: Sequence[str] = ()


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
    samples = read_samples(file, options["features"], options["labels"], options["exclude"], log=log)
    _warn_of_row_numbers(file, samples, warn)
    candidates = (len(samples.labels) if per_class is None else per_class * len(samples.labels.unique())) - 1
    compared = None
    if references is not None:
        compared = _read_references(expanded(references), labels_name, samples, options, log)
        candidates = len(compared.labels)
    return separation(
        samples.features,
        samples.labels,
        options["order"] or max(1, min(2, candidates)),
        references=None if compared is None else compared.features,
        reference_labels=None if compared is None else compared.labels,
        metric=options["metric"],
        normalize=options["normalize"],
        per_class=per_class,
        seed=options["seed"],
        memory_budget=options["memory"] * 2**20,
    )


def read_samples(
    path: Path,
    features: str | None = None,
    labels: str | None = None,
    exclude: str | None = None,
    *,
    log: Writer,
    least: int = 2,
    columns: Sequence[str] = (),
) -> Samples:
    """Read and check the features and labels of a file.

    ``features`` and ``labels``: their names in the file, by default "features" and "labels"; for a table, and for
    ``exclude``, see :func:`~zoo_harness.separation.tables.columns_of`. For ``.npy``, ``labels`` is another ``.npy``
    file. ``least``: the smallest number of samples accepted. ``columns``: the columns of features to read of a table.
    Raises a :class:`~zoo.errors.ZooError` whose ``facts["path"]`` is the file at fault.
    """
    given: Array | Tensor
    given_labels: Array | Tensor
    with blaming(path):
        kind = kind_of(path)
        if path.suffix.lower() not in ENDINGS[kind]:
            log(f"{path} is read as {kind} because of its content")
        if kind in _TABLES:
            given, given_labels, columns = _read_table(path, kind, columns or features, labels, exclude, log)
        elif exclude is None:
            given, given_labels = _ARRAYS[kind](path, features, labels)
            columns = ()
        else:
            message = f"--exclude is unused: {exclude!r}; expected a table, because only tables have columns with names"
            raise UsageError(message, code="option-unused", option="exclude")
        checked = checked_features(given, least=least)
        with blaming(expanded(Path(labels)) if kind == ".npy" and labels else path):
            return Samples(checked, checked_labels(given_labels, checked), kind, columns)


def _read_references(
    path: Path, labels: str | None, samples: Samples, options: SeparationOptions, log: Writer
) -> Samples:
    """Read the references; of a table, the columns that the samples have, because their order may differ."""
    kind = kind_of(path)
    if labels is None and kind == ".npy":
        raise missing_labels(path, "reference_labels")
    if labels is None and samples.kind != ".npy":
        labels = options["labels"]
    return read_samples(path, options["features"], labels, log=log, least=1, columns=samples.columns)


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
) -> tuple[Array, Tensor, Sequence[str]]:
    with path.open("rb") as file:
        table = _TABLES[kind](file)
    found, found_labels, columns, left_out = tables.columns_of(table, features, labels, exclude)
    log(f"features of {path}: {short_list(columns)}")
    if left_out:
        log(f"left out of {path}: {by_reason(left_out)}")
    return found, found_labels, columns


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
