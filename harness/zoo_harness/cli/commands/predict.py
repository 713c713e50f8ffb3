"""``zoo predict CHECKPOINT IMAGES...``: print the most probable classes of image files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_harness.cli.options import AsJson, Debug, Quiet, complete_run
from zoo_harness.cli.output import print_json, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.checkpoints.loaded_model import FilePrediction


def predict(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="REPO|RUN",
            help="Model: OWNER/NAME[@REV] on the Hub, or the folder of a run.",
            autocompletion=complete_run,
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Image files, or folders; zoo reads every image file of a folder."),
    ],
    top: Annotated[int, typer.Option(help="Number of classes to print for each image, most probable first.")] = 3,
    device: Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(help="Number of images that the network processes together.")] = 32,
    weights: Annotated[
        str | None, typer.Option("--checkpoint", metavar="NAME|N", help="Weights of a run: best, last or an epoch.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Print the most probable classes of images.

    The exit status is 1 if an image cannot be read.
    """
    from zoo.errors import UsageError
    from zoo_harness.checkpoints.opened import open_checkpoint
    from zoo_harness.data.image_files import image_paths
    from zoo_harness.hub.locate import find_checkpoint
    from zoo_harness.records.option_checks import check_device
    from zoo_harness.runs.request import check_checkpoints

    for option, value in (("--top", top), ("--batch-size", batch_size)):
        if value < 1:
            message = f"{option} {value} must be at least 1"
            raise UsageError(message, code="option-range", option=option, given=value)
    check_device(device)
    paths = image_paths(images)
    if not any(map(os.path.lexists, paths)):  # if one of several files is missing, zoo reports it and reads the others
        message = f"no such file: {str(paths[0])!r}; expected image files, or folders of them"
        raise UsageError(message, code="missing-file", path=str(paths[0]))
    place = find_checkpoint(checkpoint, (lambda _line: None) if quiet or as_json else tell)
    check_checkpoints([place.path], weights)
    opened = open_checkpoint(place.path)

    # Importing torch takes seconds, so every check that needs no torch comes before this line.
    from zoo_harness.checkpoints.load import load_folder
    from zoo_harness.checkpoints.loaded_model import predict_files
    from zoo_harness.compute.device import choose_device

    model = load_folder(opened, choose_device(device), checkpoint=weights)
    model.check_that_it_runs()
    found = [each for batch in predict_files(model, paths, top, batch_size) for each in batch]
    if as_json:
        print_json([_plain(each) for each in found])
    else:
        _print_predictions(found)
    many = sum(each.first_of_many for each in found)
    if many:
        tell(f"warning: {many} of {len(found)} files have several pages or frames; only the first of each is used")
    failed = sum(each.error is not None for each in found)
    if failed:
        tell(f"{failed} of {len(found)} images could not be read")
        raise typer.Exit(1)


def _plain(prediction: FilePrediction) -> dict[str, Any]:
    if prediction.error is not None:
        return {"image": str(prediction.path), "error": prediction.error}
    classes = [{"class": name, "probability": share} for name, share in prediction.classes]
    return {"image": str(prediction.path), "classes": classes}


def _print_predictions(found: Iterable[FilePrediction]) -> None:
    from zoo.text import one_line

    rows = []
    for prediction in found:
        if prediction.error is not None:
            tell(f"error: {one_line(prediction.error)}")
        for place, (name, share) in enumerate(prediction.classes):
            rows.append([one_line(prediction.path) if place == 0 else "", one_line(name), f"{share:.4f}"])
    if rows:
        print_table(["image", "class", "probability"], rows, right=["probability"])
