"""``zoo train``: train a whole network from scratch."""

from __future__ import annotations

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, DatasetName, OptionalBackboneName, Quiet, Verbose
from zoo_harness.cli.run_output import display_for, ended_in_order, print_run
from zoo_harness.records.options import TrainOptions


def _train(
    name: OptionalBackboneName = None,
    dataset: DatasetName = None,
    *,
    given: Given,
    verbose: Verbose = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a whole network from scratch.

    zoo chooses the best epoch on a held-out part of the training split, and scores the test split once, at the end.
    """
    from zoo_harness.api import train

    with ended_in_order(), display_for(quiet=quiet) as display:
        run = train(name, dataset, progress=display, **given)
    print_run(run, as_json=as_json, quiet=quiet, verbose=verbose)


train_command = command(TrainOptions, _train)
