"""``zoo features NAME``: write the outputs of a network's layers for the images of a dataset to a file."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, DatasetName, Quiet, complete_backbone_or_run
from zoo_harness.cli.output import print_facts, print_json, print_lines, print_notes, print_table
from zoo_harness.cli.run_output import display_for, ended_in_order
from zoo_harness.records.options import FeaturesOptions

if TYPE_CHECKING:
    from pathlib import Path

    from zoo_harness.records.features import FeaturesRecord

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of a backbone from 'zoo list', the folder of a run, or OWNER/NAME[@REV] on the Hub.",
        autocompletion=complete_backbone_or_run,
    ),
]


def _features(
    name: Name, dataset: DatasetName = None, *, given: Given, quiet: Quiet = False, as_json: AsJson = False
) -> None:
    """Write the features of a dataset's images to a file.

    The file also contains the labels and class names, so that zoo si, scikit-learn and other
    programs can use it. For a run, --dataset is optional: by default zoo reads the images that
    the run used.
    """
    from zoo.errors import UsageError

    out = given.get("out")
    if out is None:
        raise UsageError("missing --out; expected --out FILE.safetensors, .npz or .parquet", code="missing-out")

    from zoo_harness.api import features

    with ended_in_order(), display_for(quiet=quiet) as display:
        found = features(name, dataset, progress=display, **given)
    if as_json:
        print_json({"file": str(out), "bytes": out.stat().st_size, **found.record.model_dump(mode="json")})
        return
    if quiet:
        print_lines(str(out))
    else:
        _print_record(found.record, out)


features_command = command(FeaturesOptions, _features)


def _print_record(record: FeaturesRecord, out: Path) -> None:
    from zoo_harness.util.byte_sizes import bytes_in_words

    rows = " + ".join(f"{each.rows:,} {each.split}" for each in record.splits)
    print_lines("")
    print_notes(f"{record.network} on {record.title}: {rows} images, {len(record.class_names)} classes")
    print_lines("")
    columns = ["array", "layer", "width", "vector"]
    print_table(
        columns, [[each.array, each.layer, f"{each.width:,}", each.vector] for each in record.layers], right=["width"]
    )
    layer = f" --features {record.layers[-1].layer}" if len(record.layers) > 1 else ""
    print_lines("")
    print_facts(
        [
            ("file", f"{out}, {bytes_in_words(out.stat().st_size)}"),
            ("next", f"zoo si {shlex.quote(str(out))}{layer}"),
        ]
    )
