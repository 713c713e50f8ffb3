"""``zoo eval``: fine-tune one block of a backbone, or score a checkpoint again."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, DatasetName, Quiet, Verbose, complete_backbone_or_run
from zoo_harness.cli.run_output import display_for, ended_in_order, print_run
from zoo_harness.records.options import EvalOptions

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Name of a backbone from 'zoo list'; with --epochs 0 also the folder of a run, or OWNER/NAME[@REV].",
        autocompletion=complete_backbone_or_run,
    ),
]


def _eval(
    name: Name = None,
    dataset: DatasetName = None,
    *,
    given: Given,
    verbose: Verbose = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune one block of a backbone on a dataset, and score it.

    zoo writes the checkpoint, a model card, plots and a record of all settings to a new folder, the run.

    If you give a run or a published checkpoint and --epochs 0, zoo scores that checkpoint again, on its own data or on
    another dataset with the same classes. zoo then reports which recorded results were reproduced; the exit status is
    1 if some were not.
    """
    from zoo_harness.hub.locate import names_a_checkpoint

    if name is not None and "resume" not in given and names_a_checkpoint(name):
        from zoo_harness.cli.commands.rescore import rescore_checkpoint

        rescore_checkpoint(name, dataset, given, as_json=as_json, quiet=quiet, verbose=verbose)
        return

    from zoo_harness.api import evaluate

    with ended_in_order(), display_for(quiet=quiet) as display:
        run = evaluate(name, dataset, progress=display, **given)
    print_run(run, as_json=as_json, quiet=quiet, verbose=verbose)


evaluate_command = command(EvalOptions, _eval)
