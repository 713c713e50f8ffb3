"""Render the model card of a run: the ``README.md`` beside the run's checkpoint in its folder or on the Hub."""

from __future__ import annotations

import shlex
from importlib import resources

import jinja2

from zoo.license_terms import binding_terms
from zoo_harness.records.file_names import RECORD
from zoo_harness.records.run import RUN, Measurement, RunRecord
from zoo_harness.reports import (
    accuracy_tables,
    checkpoint_table,
    markdown,
    published_results,
    separation_tables,
    wording,
)
from zoo_harness.reports.card_merge import marked
from zoo_harness.reports.front_matter import front_matter, hub_dataset
from zoo_harness.reports.separation_tables import score_definitions
from zoo_harness.reports.wording import number, percent
from zoo_harness.util.byte_sizes import bytes_in_words

_MOST_CHECKPOINTS = 50  # the most rows of the checkpoint table

_LOGGING = ("--log-steps", "log_steps=", "--tensorboard", "tensorboard=True")  # these make a run write steps.jsonl


def render_card(record: RunRecord, repository: str | None = None, *, published: bool = False) -> str:
    """Render the ``README.md`` of a run: YAML front matter, then a Markdown body between two markers.

    ``repository`` is the ``OWNER/NAME`` that the run is published as, or ``None`` for a card in a folder. ``published``
    says that the folder has the files of a published checkpoint instead of a run folder. Untrusted text such as class
    names, titles and paths is escaped in both parts. The card states only what the record contains.
    """
    context = _context(record, repository, in_tree=published or repository is not None)
    body = markdown_template("run_card.md.j2").render(context)
    return f"---\n{front_matter(record)}\n---\n\n{marked(body)}"


def markdown_template(name: str) -> jinja2.Template:
    """Return a Markdown template that escapes every value when it is rendered."""
    # Jinja's autoescape supports HTML only, and its entities would be visible in code spans. Therefore every value
    # passes through `text`. The results of macros would be escaped again, so the templates have no macros.
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
        "raw": markdown.Markdown,
        "percent": percent,
        "folderless": wording.without_folders,
        "bootstrap": separation_tables.with_error,
        "number": number,
        "join_words": shlex.join,
        "zip": zip,
    }
    environment.globals |= {"wording": wording, "separation": separation_tables, "binding_terms": binding_terms}
    text = resources.files("zoo_cards").joinpath("templates", name).read_text(encoding="utf-8")
    return environment.from_string(text)


def _context(record: RunRecord, repository: str | None, *, in_tree: bool) -> dict[str, object]:
    dataset, (headline, split) = record.dataset, record.headline
    scoring = record.settings.separation
    return {
        "record": record,
        "repository": repository,
        "commands": _commands(record, repository),
        "in_tree": in_tree,
        "record_file": RECORD if in_tree else RUN,
        "headline": headline,
        "scoring": scoring.in_words(),
        "headline_split": split,
        "balanced": len(set(split.per_class)) == 1,
        "accuracy_details": accuracy_tables.detail_rows(record),
        "prediction_rows": accuracy_tables.prediction_rows(record),
        "accuracy_notes": accuracy_tables.accuracy_notes(record),
        "headline_details": accuracy_tables.details_of(record, split),
        "checkpoint_rows": checkpoint_table.checkpoint_rows(record, _MOST_CHECKPOINTS),
        "checkpoint_splits": [name.capitalize() for name in checkpoint_table.scored_splits(record)],
        "checkpoint_bytes": bytes_in_words(sum(kept.bytes for kept in record.checkpoints)),
        "separation_scores": [(title[0].upper() + title[1:], text) for title, text in score_definitions(scoring.order)],
        "extreme": any(measured.value in (0, 1) for measured in _measurements(record)),
        "published": [
            (figure, published_results.differences(record, figure))
            for figure in published_results.published_figures(record.backbone.name, dataset.name)
        ],
        "command": wording.command_without_folders(record.command),
        "logs_steps": any(option in " ".join(record.command) for option in _LOGGING),
        "data_of_their_own": dataset.argument is not None and hub_dataset(record) is None,
    }


def _commands(record: RunRecord, repository: str | None) -> str:
    """Return shell commands that predict and download; add one that scores again unless the data were in memory."""
    place, dataset = repository or "PATH", record.dataset
    lines = [f"zoo predict {place} image.jpg"]
    if repository:
        lines.append(f"zoo pull {repository} --to FOLDER")
    if record.headline[0] is not None and not dataset.in_memory:
        argument = "" if dataset.argument is None else f":{wording.without_folders(dataset.argument)}"
        lines.append(shlex.join(["zoo", "eval", place, "--dataset", f"{dataset.name}{argument}", "--epochs", "0"]))
    return "\n".join(lines)


def _measurements(record: RunRecord) -> list[Measurement]:
    results = record.results
    worst = [each.accuracy for each in results.confusion.worst] if results.confusion else []
    worst += [measured for _name, measured in accuracy_tables.detail_rows(record) if measured is not None]
    worst += [measured for _name, measured in accuracy_tables.prediction_rows(record)]
    accuracies = (results.accuracy, results.train_accuracy, results.test_accuracy, *worst)
    tables = separation_tables.separation_tables(record)
    scores = (score for table in tables for row in table.rows for score in row.scores)
    return [*filter(None, accuracies), *filter(None, scores)]
