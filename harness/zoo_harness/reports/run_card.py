"""The model card of a run: the README.md that goes with its checkpoint, here and on the Hub."""

from __future__ import annotations

import shlex
from importlib import resources

import jinja2

from zoo.backbone import DualHead
from zoo_harness.records.run import Measurement, RunRecord
from zoo_harness.reports import (
    card_snippets,
    markdown,
    published_results as published,
    separation_tables as run_separation,
    wording as card_wording,
    wording as training_wording,
)
from zoo_harness.reports.card_merge import marked
from zoo_harness.reports.front_matter import front_matter, hub_dataset

_MOST_CLASSES_LISTED = 100

_CURVES = (
    ("loss.png", "Loss of each epoch"),
    ("accuracy.png", "Accuracy of each epoch"),
    ("learning_rate.png", "Learning rate at each step"),
)


def render_card(record: RunRecord, repository: str | None = None, *, published: bool = False) -> str:
    """The whole README.md: YAML front matter, then the body in Markdown between the markers of our part.

    ``repository``: the checked ``OWNER/NAME`` it is published under, for the code in it; ``None`` for a folder.
    ``published``: the files are those of a published tree, as they are in a repository, not of a run directory. Names
    from outside (classes, titles, paths) stay plain text in both; nothing in the card is guessed.
    """
    template = resources.files("zoo_cards").joinpath("templates", "run_card.md.j2")
    body = (
        markdown_environment()
        .from_string(template.read_text(encoding="utf-8"))
        .render(_context(record, repository, in_tree=published or repository is not None))
    )
    return f"---\n{front_matter(record)}\n---\n\n{marked(body)}"


def markdown_environment() -> jinja2.Environment:
    """Templates of Markdown in which every value is escaped as it is filled in."""
    # Autoescape knows HTML alone, and its entities would show in code spans: every value passes `text` instead,
    # what a macro returns as well, so the template has none.
    environment = jinja2.Environment(  # noqa: S701
        finalize=markdown.text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": markdown.code,
        "codes": markdown.code_list,
        "fenced": markdown.fenced,
        "link": markdown.link,
        "percent": card_wording.percent,
        "folderless": card_wording.without_folders,
        "bootstrap": run_separation.with_error,
        "number": card_wording.number,
        "per_class": card_wording.per_class,
    }
    return environment


def _context(record: RunRecord, repository: str | None, *, in_tree: bool) -> dict[str, object]:
    dataset, settings = record.dataset, record.settings
    headline, headline_split = record.headline
    command = card_wording.command_without_folders(record.command)
    return {
        "record": record,
        "repository": repository,
        "snippets": {
            "zoo": card_snippets.zoo_snippet(repository),
            "timm": card_snippets.timm_snippet(repository),
            "transformers": card_snippets.transformers_snippet(repository),
            "shell": card_snippets.shell_snippet(record, repository),
        },
        "curves": [(name, title) for name, title in _CURVES if name in record.plots],
        "published_tree": in_tree,
        "files": _files(record, published=in_tree),
        "finished": record.status == "finished",
        "pretrained": record.weights.kind != "random",
        "declared": record.weights.declared,
        "classes": dataset.classes[:_MOST_CLASSES_LISTED],
        "unlisted_classes": max(0, len(dataset.classes) - _MOST_CLASSES_LISTED),
        "headline": headline,
        "headline_split": headline_split,
        "largest_class": f"{max(headline_split.per_class) / headline_split.images:.2%}".replace("%", " %"),
        "balanced": len(set(headline_split.per_class)) == 1,
        "settings_table": _settings_table(record),
        "results_table": _results_table(record),
        "separation_scores": [
            (f"{title[0].upper()}{title[1:]}", text) for title, text in run_separation.score_definitions()
        ],
        "separation_tables": run_separation.separation_tables(record),
        "separation_notes": run_separation.separation_notes(record),
        "raw_pixels": run_separation.pixels_in_words(record),
        "extreme": any(measured.value in (0, 1) for measured in _measurements(record)),
        "published": [
            (figure, published.differences(record, figure))
            for figure in published.published_figures(record.backbone.name, dataset.name)
        ],
        "published_table": _published_table(record),
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "command": shlex.join(command),
        "paths_left_out": command != record.command,
        "data_of_their_own": dataset.argument is not None and hub_dataset(record) is None,
        "layer": run_separation.scored_layer(record),
        "seen_by_classifier": run_separation.scored_layer(record) == record.backbone.features[-1].path,
        "loads_in_timm": record.loads_in_timm,
        "heads_averaged_by_timm": isinstance(settings.head, DualHead) and settings.predict == "cls",
    }


def _settings_table(record: RunRecord) -> list[tuple[str, str]]:
    settings, parameters = record.settings, record.parameters
    training, preprocessing = settings.training, settings.preprocessing
    width, classes = record.backbone.features[-1].width, len(record.dataset.classes)
    number = card_wording.number
    return [
        ("recipe", settings.recipe + (f" ({settings.recipe_source})" if settings.recipe_source else "")),
        ("modules trained", "all" if "*" in settings.unfreeze else ", ".join(settings.unfreeze)),
        ("new classifier", card_wording.head_in_words(settings.head, width, classes)),
        ("parameters", number(parameters.total)),
        ("of these trained", number(parameters.trained)),
        ("trained, without the classifier", number(parameters.trained_without_head)),
        ("epochs", f"{record.results.epochs_done} of {training.epochs}"),
        ("optimizer", training_wording.optimizer_in_words(training)),
        ("learning rate", training_wording.learning_rate_in_words(training)),
        ("batch size", str(training.batch_size)),
        *_loss_rows(record),
        *training_wording.training_rows(training),
        *_frozen_rows(record),
        ("preprocessing", card_wording.preprocessing_in_words(preprocessing)),
        ("mean", _triple(preprocessing.mean)),
        ("standard deviation", _triple(preprocessing.std)),
        ("seed", str(settings.seed)),
        ("device, precision", f"{settings.device}, {settings.precision}"),
    ]


def _frozen_rows(record: RunRecord) -> list[tuple[str, str]]:
    if record.parameters.trained == record.parameters.total:
        return []
    return [("frozen part", training_wording.frozen_part_in_words(record.results.frozen_part))]


def _loss_rows(record: RunRecord) -> list[tuple[str, str]]:
    if not isinstance(record.settings.head, DualHead):
        return [("loss", "cross-entropy")]
    decisive = "the first classifier" if record.settings.predict == "cls" else "the mean of both classifiers"
    return [("loss", "cross-entropy, summed over both classifiers"), ("prediction from", decisive)]


def _results_table(record: RunRecord) -> list[tuple[str, ...]]:
    """Rows of name, training split, evaluation split, and test split where one was kept for the end."""
    results, number = record.results, card_wording.number
    train, evaluation = record.dataset.train.images, record.dataset.evaluation.images
    rows: list[tuple[str, ...]] = [
        ("images", number(train), number(evaluation)),
        ("accuracy", card_wording.percent(results.train_accuracy), card_wording.percent(results.accuracy)),
        ("loss", "-", number(results.evaluation_loss, digits=4)),
        ("seconds per epoch", number(results.mean_train_seconds), number(results.mean_evaluation_seconds)),
    ]
    test = record.dataset.test
    if test is None:
        return rows
    of_test = (
        number(test.images),
        card_wording.percent(results.test_accuracy),
        number(results.test_loss, digits=4),
        "-",
    )
    return [(*row, cell) for row, cell in zip(rows, of_test, strict=True)]


def _published_table(record: RunRecord) -> list[tuple[str, str, str, str]]:
    """Rows of name, accuracy, trained parameters, seconds; this run first."""
    percent, number, results = card_wording.percent, card_wording.number, record.results
    ours = (percent(record.headline[0]), number(record.parameters.trained), number(results.mean_train_seconds))
    rows = [("this run", *ours)]
    for index, figure in enumerate(published.published_figures(record.backbone.name, record.dataset.name), 1):
        row = figure.row
        seconds = "not stated" if row.train_seconds_per_epoch is None else number(row.train_seconds_per_epoch)
        rows.append((f"[{index}]", f"{row.accuracy:.2f} %", number(row.trainable_parameters), seconds))
    return rows


def _measurements(record: RunRecord) -> list[Measurement]:
    results = record.results
    separations = (results.separation_raw_pixels, results.separation_before, results.separation_after)
    measured = (results.accuracy, results.train_accuracy, results.test_accuracy)
    accuracies = [value for value in measured if value is not None]
    if results.confusion is not None:
        accuracies += [worst.accuracy for worst in results.confusion.worst]
    return [*accuracies, *(score for found in separations for score in run_separation.measurements(found))]


def _files(record: RunRecord, *, published: bool) -> list[tuple[str, str]]:
    """The files that lie beside the card, and what each is."""
    files = [("zoo.json" if published else "run.json", "the record of the run: every setting, version and digest")]
    if record.checkpoint_sha256 is not None:
        files.insert(0, ("model.safetensors", f"the weights, SHA-256 {record.checkpoint_sha256}"))
        reads = (
            "what timm and transformers read" if record.loads_in_timm else "what makes timm and transformers refuse it"
        )
        files.insert(1, ("config.json", f"{reads}, and the class names"))
    if record.results.epochs_done:
        files.append(("history.jsonl", "loss, accuracy and seconds of every epoch"))
    if record.results.confusion is not None:
        files.append(("confusion.json", "how many images of each class were taken for which"))
    if not published:
        files.append(("options.json", "what was asked for, with folders of this machine; not to be published"))
        if record.results.epochs_done:
            files.append(("training_state.safetensors", "the optimizer's state; not to be published"))
    return files


def _triple(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:g}" for value in values)
