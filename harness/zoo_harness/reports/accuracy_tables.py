"""Prepare the accuracies of a run as table rows and notes, for the model card and the terminal."""

from __future__ import annotations

from zoo_harness.records.run import AccuracyDetails, Measurement, RunRecord, SplitRecord


def accuracy_rows(record: RunRecord) -> list[tuple[str, Measurement | None]]:
    """Return pairs of a name and an accuracy, one for each split; if the run has a test split, its pair comes first.

    If a split shares images with the training split or lacks classes, the rows of :func:`detail_rows` follow.
    """
    results, dataset = record.results, record.dataset
    rows = [(f"{dataset.evaluation_name} accuracy", results.accuracy), *_detail_rows(record, dataset.evaluation)]
    rows.append(("training accuracy", results.train_accuracy))
    if dataset.test is not None:
        rows[:0] = [(f"{dataset.test.split} accuracy", results.test_accuracy), *_detail_rows(record, dataset.test)]
    return rows


def detail_rows(record: RunRecord) -> list[tuple[str, Measurement | None]]:
    """Return rows for accuracies without images shared with the training split, and for mean per-class accuracies."""
    dataset = record.dataset
    splits = filter(None, (dataset.test, dataset.evaluation))
    return [row for split in splits for row in _detail_rows(record, split)]


def accuracy_notes(record: RunRecord) -> list[str]:
    """Return sentences about evaluation images that are also training images, and about classes without images."""
    notes = []
    for split in filter(None, (record.dataset.test, record.dataset.evaluation)):
        details, name = details_of(record, split), record.dataset.name_of(split)
        if details is None:
            continue
        if details.shared:
            left = "" if details.unshared else "; no other image is left to compute an accuracy on"
            notes.append(
                f"{details.shared:,} of the {split.images:,} {name} images are also in the training "
                f"split, equal in every pixel{left}."
            )
        if details.absent:
            shown = ", ".join(details.absent[:10]) + (", ..." if len(details.absent) > 10 else "")
            notes.append(
                f"The split {split.split} has no image of {len(details.absent):,} of "
                f"{len(record.dataset.classes):,} classes ({shown}). Accuracy, loss and SI are computed on the classes "
                "present. Centre SI compares images only with the centres of the classes present. In the mean "
                "per-class accuracy over all classes, a class without images counts as 0."
            )
    return notes


def prediction_rows(record: RunRecord) -> list[tuple[str, Measurement]]:
    """Return the name and value of each further metric of the predictions, on the split of the run's accuracy."""
    found, details = record.results.predictions, details_of(record, record.headline[1])
    if found is None:
        return []
    rows: dict[str, Measurement | None] = {
        "mean per-class accuracy (balanced accuracy)": details.per_class if details else None,
        "macro F1": found.macro_f1,
        "top-5 accuracy": found.top5,
        "area under the ROC curve": found.auroc,
        "expected calibration error": found.calibration_error,
    }
    return [(name, measured) for name, measured in rows.items() if measured is not None]


def details_of(record: RunRecord, split: SplitRecord) -> AccuracyDetails | None:
    """Return the recorded accuracy details of the evaluation or test split, or ``None`` if none were measured."""
    results = record.results
    return results.test_accuracy_details if split is record.dataset.test else results.accuracy_details


def _detail_rows(record: RunRecord, split: SplitRecord) -> list[tuple[str, Measurement | None]]:
    details, word = details_of(record, split), record.dataset.name_of(split)
    rows: list[tuple[str, Measurement | None]] = []
    if details is not None and details.shared:
        name = f"accuracy without the {details.shared:,} {word} images that are also in train"
        rows.append((name, details.unshared))
    if details is not None and details.absent:
        classes = len(record.dataset.classes)
        present = classes - len(details.absent)
        rows.append((f"mean per-class accuracy, {present:,} classes in {word}", details.per_class))
        rows.append((f"mean per-class accuracy, all {classes:,} classes", details.per_class_of_all))
    return rows


def seconds_in_words(record: RunRecord) -> str | None:
    """Describe the mean seconds per epoch for training and for evaluation; return ``None`` if no epoch was run.

    >>> from zoo_harness.records.run import Results
    >>> results = Results.model_construct(mean_train_seconds=12.34, mean_evaluation_seconds=1.5, epochs_done=20)
    >>> seconds_in_words(RunRecord.model_construct(results=results))
    'mean of 20 epochs: training 12.34 s, evaluation 1.50 s'
    """
    results = record.results
    if results.mean_train_seconds is None or results.mean_evaluation_seconds is None:
        return None
    counted = "1 epoch" if results.epochs_done == 1 else f"mean of {results.epochs_done:,} epochs"
    train, evaluation = results.mean_train_seconds, results.mean_evaluation_seconds
    return f"{counted}: training {train:,.2f} s, evaluation {evaluation:,.2f} s"
